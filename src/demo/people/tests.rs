use std::collections::HashSet;

use super::*;

fn people(seed: u64) -> People {
    People::new(seed, Date::constant(2026, 11, 20))
}

#[test]
fn the_same_seed_gives_the_same_people() {
    let (mut one, mut other) = (people(7), people(7));
    for _ in 0..500 {
        assert_eq!(format!("{:?}", one.employee()), format!("{:?}", other.employee()));
    }
}

#[test]
fn families_weigh_a_thousand_in_all() {
    assert_eq!(FAMILIES.iter().map(|family| family.weight).sum::<u32>(), 1000);
}

#[test]
fn emails_are_unique_and_plausible_whatever_the_name() {
    let mut people = people(1);
    let mut seen = HashSet::new();
    for _ in 0..20_000 {
        let person = people.employee();
        for (_, address) in person.emails {
            let (mailbox, domain) = address.split_once('@').unwrap();
            assert!(mailbox.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'), "{address}");
            assert!(!mailbox.starts_with('.') && !mailbox.ends_with('.'), "{address}");
            assert!(domain.ends_with(".example") || domain.starts_with("example."), "{address}");
            assert!(seen.insert(address.to_lowercase()), "{address} twice");
        }
    }
}

#[test]
fn about_one_in_a_hundred_has_a_flaw_and_every_flaw_occurs() {
    let mut people = people(2);
    let flaws: Vec<Flaw> = (0..20_000).filter_map(|_| people.employee().flaw).collect();
    assert!((150..=250).contains(&flaws.len()), "{}", flaws.len());
    assert!(FLAWS.iter().all(|flaw| flaws.contains(flaw)));
}

#[test]
fn people_without_a_flaw_are_within_what_the_platform_accepts() {
    let mut people = people(3);
    for _ in 0..20_000 {
        let person = people.employee();
        if person.flaw.is_some() {
            continue;
        }
        let ni = person.ni_number.unwrap();
        assert!(ni.len() == 9 && ni.starts_with('Q') && ni.ends_with(['A', 'B', 'C', 'D']), "{ni}");
        assert!(!person.forenames.is_empty() && person.surname.chars().count() <= 100);
        assert!(person.addresses.iter().all(|a| a.lines[0].is_some() && a.postcode.len() <= 8));
        assert!(
            person
                .addresses
                .iter()
                .flat_map(|a| a.lines.iter().flatten())
                .all(|line| line.chars().count() <= 80)
        );
        assert!(person.jobs.iter().filter(|job| job.is_primary).count() == 1);
        assert!(
            person
                .jobs
                .iter()
                .all(|job| job.pay.first().is_some_and(|pay| pay.effective_from == job.started_on))
        );
        let age = (person.start_date - person.date_of_birth).get_days() / 365;
        assert!((15..=61).contains(&age), "{age}");
    }
}
