//! Believable accounts that people opened themselves before HR sent anything. All names and addresses are made up.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng, seq::SliceRandom};

use super::account::SeedAccount;

const FORENAMES: [(&str, &str, &str); 16] = [
    ("Amelia", "Ms", "Female"),
    ("Oliver", "Mr", "Male"),
    ("Priya", "Mrs", "Female"),
    ("Tomasz", "Mr", "Male"),
    ("Siobhan", "Miss", "Female"),
    ("Kwame", "Mr", "Male"),
    ("Zoë", "Dr", "Female"),
    ("Rhys", "Mr", "Male"),
    ("Alex", "Mx", "Non-binary"),
    ("Fatima", "Mrs", "Female"),
    ("George", "Mr", "Male"),
    ("Mei", "Ms", "Female"),
    ("Ewan", "Mr", "Male"),
    ("Charlotte", "Prof", "Female"),
    ("Imran", "Mr", "Male"),
    ("Sam", "Mx", "Prefer not to say"),
];

const SURNAMES: [&str; 16] = [
    "Ashworth",
    "Patel",
    "Okafor",
    "MacLeod",
    "Novak",
    "Hughes",
    "O'Brien",
    "Singh",
    "Whitfield",
    "Nguyen",
    "Baxter",
    "Rossi",
    "Hartley",
    "Mensah",
    "Fenwick",
    "Zielinski",
];

/// So many self-registered accounts: name, email and birth date, not linked to anybody. The same seed gives the same.
pub fn self_registered(count: usize, seed: u64) -> Vec<SeedAccount> {
    let mut random = StdRng::seed_from_u64(seed);
    (1..=count).map(|number| one(number, &mut random)).collect()
}

fn one(number: usize, random: &mut StdRng) -> SeedAccount {
    let (forename, title, gender) = FORENAMES.choose(random).copied().unwrap_or(("Amelia", "Ms", "Female"));
    let surname = SURNAMES.choose(random).copied().unwrap_or("Ashworth");
    let plain = |text: &str| text.to_lowercase().replace('ë', "e").replace('\'', "");
    let email = format!("{}.{}{number}@example.com", plain(forename), plain(surname));
    let born = format!(
        "{}-{:02}-{:02}",
        random.gen_range(1958..=2006),
        random.gen_range(1..=12),
        random.gen_range(1..=28)
    );
    SeedAccount::new(&email)
        .with("title", title)
        .with("forenames", forename)
        .with("surname", surname)
        .with("gender", gender)
        .with("dateOfBirth", &born)
}
