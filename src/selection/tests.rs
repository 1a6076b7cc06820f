use super::hash::KeyHasher;
use super::rows::RowCache;

#[test]
fn the_row_cache_stays_within_its_bound() {
    let hasher = KeyHasher::with_key([7; 16]);
    let mut cache = RowCache::with_capacity(100);
    for row in 0..1_000_u32 {
        assert!(
            cache.replace(hasher.row(1, &row.to_be_bytes()), 1),
            "a row that was never seen counts as changed"
        );
        assert!(cache.len() <= 100);
    }
    assert!(!cache.replace(hasher.row(1, &999_u32.to_be_bytes()), 1), "the latest row is remembered");
    assert!(
        cache.replace(hasher.row(1, &0_u32.to_be_bytes()), 1),
        "the oldest was forgotten, and counts as changed"
    );
}
