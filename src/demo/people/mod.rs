//! Made-up employees of a British insurer, from a seed.
//!
//! [`People`] is an endless supply: the same seed gives the same people. They are as an HR application would hold them,
//! in its own words (`sql/demo/describe.sql` translates), and cannot be mistaken for real ones by a machine: National
//! Insurance numbers begin with Q, which is never issued; telephone numbers are Ofcom's for drama; addresses of email are in
//! reserved domains. About one in a hundred has something wrong that a first sync will show.
//! [`load()`] puts them into the demo's schema.

mod jobs;
mod load;
mod names;
mod places;

use std::collections::HashMap;

use jiff::ToSpan;
use jiff::civil::Date;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use jobs::level;
use names::{FAMILIES, Family, SHORT, folded};
use places::{HOUSES, PLACES, Place, STREETS};

pub(super) use jobs::{DEPARTMENTS, LOCATIONS};
pub use jobs::{Job, Pay};
pub use load::{LoadError, Loaded, insert, load};

/// One in so many has something wrong.
const FAULTY_ONE_IN: u32 = 100;

/// What is wrong with a record, so that the platform, or our own checks, would refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// No title.
    NoTitle,
    /// A title that the platform does not list and nobody translates.
    UnknownTitle,
    /// No pay at all.
    NoPay,
    /// A reason for the pay change that the platform does not list.
    UnknownReason,
    /// No email of any kind.
    NoEmail,
    /// A National Insurance number that is none.
    BadNationalInsurance,
    /// A level that no package is mapped to.
    UnmappedLevel,
}

const FLAWS: [Flaw; 7] = [
    Flaw::NoTitle,
    Flaw::UnknownTitle,
    Flaw::NoPay,
    Flaw::UnknownReason,
    Flaw::NoEmail,
    Flaw::BadNationalInsurance,
    Flaw::UnmappedLevel,
];

/// A row of `hr.employee` and what hangs on it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of sql/demo/schema.sql")]
pub struct Person {
    pub id: i64,
    pub employee_number: String,
    pub title: Option<String>,
    pub forenames: String,
    pub known_as: Option<String>,
    pub surname: String,
    pub date_of_birth: Date,
    pub gender: &'static str,
    pub ni_number: Option<String>,
    pub start_date: Date,
    pub continuous_service_date: Date,
    pub leave_date: Option<Date>,
    pub benefits_level: Option<&'static str>,
    pub create_benefits_record: bool,
    pub bank_sort_code: String,
    pub bank_account: String,
    /// (kind, address)
    pub emails: Vec<(&'static str, String)>,
    /// (kind, number)
    pub phones: Vec<(&'static str, String)>,
    pub addresses: Vec<Address>,
    pub jobs: Vec<Job>,
    /// What is wrong, if anything.
    pub flaw: Option<Flaw>,
}

/// A row of `hr.address`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of sql/demo/schema.sql")]
pub struct Address {
    pub lines: [Option<String>; 4],
    pub postcode: String,
    pub from_date: Date,
}

/// An endless supply of made-up people.
#[derive(Debug)]
pub struct People {
    random: StdRng,
    today: Date,
    next_id: i64,
    /// How often the local part of an email was given out: emails are unique.
    mailboxes: HashMap<String, u32>,
}

impl People {
    /// The people of `seed`, as they stand on `today`. Ids count from 1.
    pub fn new(seed: u64, today: Date) -> Self {
        Self { random: StdRng::seed_from_u64(seed), today, next_id: 1, mailboxes: HashMap::new() }
    }

    /// The next person: some years with the company, one in a hundred with a flaw.
    pub fn employee(&mut self) -> Person {
        let days = i64::from(self.random.gen_range(30..9_000_i32).min(self.random.gen_range(30..9_000_i32)));
        let start = self.today.saturating_sub(days.days());
        let mut person = self.person(start);
        if self.random.gen_ratio(1, 40) {
            let served = self.random.gen_range(0..days + 60);
            person.leave_date = Some(start.saturating_add(served.days()));
        }
        person.create_benefits_record = self.random.gen_ratio(1, 50);
        if self.random.gen_ratio(1, FAULTY_ONE_IN) {
            spoil(&mut person, pick(&mut self.random, &FLAWS));
        }
        person
    }

    /// Somebody who starts within the next weeks. Without flaw; the tick is the caller's to set.
    pub fn starter(&mut self) -> Person {
        let days: i32 = self.random.gen_range(-7..28);
        self.person(self.today.saturating_add(days.days()))
    }

    /// A new address from `from_date` on.
    pub fn address(&mut self, from_date: Date) -> Address {
        let place = pick_ref(&mut self.random, &PLACES);
        self.address_in(place, from_date)
    }

    /// A surname.
    pub fn surname(&mut self) -> &'static str {
        let family = family(&mut self.random);
        pick(&mut self.random, family.surnames)
    }

    /// An email of this kind (home, work, services) that nobody has.
    pub fn email(&mut self, kind: &str, forenames: &str, surname: &str) -> String {
        let mailbox = self.mailbox(forenames, surname);
        format!("{mailbox}@{}", self.domain(kind))
    }

    fn person(&mut self, start: Date) -> Person {
        let family = family(&mut self.random);
        let gender = weighted(&mut self.random, &[("F", 500), ("M", 485), ("X", 10), ("U", 5)]);
        let woman = gender == "F" || (gender != "M" && self.random.gen_bool(0.5));
        let forenames = self.forenames(family, woman);
        let surname = pick(&mut self.random, family.surnames).to_owned();
        let id = self.next_id;
        self.next_id += 1;
        let place = pick_ref(&mut self.random, &PLACES);
        let job = self.job(start, true);
        let youngest: i64 = if job.grade_id == 1 { 16 } else { 18 };
        let oldest: i64 = if job.grade_id == 1 { 24 } else { 60 };
        let age = self.random.gen_range(youngest * 366..oldest * 365);
        let mut jobs = vec![job];
        if self.random.gen_ratio(1, 20) {
            jobs.push(self.job(start, false));
        }
        Person {
            id,
            employee_number: format!("{:06}", 100_000 + id),
            title: Some(self.title(gender, woman).to_owned()),
            known_as: self.known_as(&forenames),
            date_of_birth: start.saturating_sub(age.days()),
            gender,
            ni_number: Some(self.ni_number()),
            start_date: start,
            continuous_service_date: self.continuous_service(start),
            leave_date: None,
            benefits_level: level(jobs.first().map_or(2, |job| job.grade_id), &mut self.random),
            create_benefits_record: false,
            bank_sort_code: format!("00-00-{:02}", self.random.gen_range(0..100)),
            bank_account: format!("{:08}", self.random.gen_range(0..100_000_000)),
            emails: self.emails(&forenames, &surname),
            phones: self.phones(place),
            addresses: self.addresses(place, start),
            jobs,
            forenames,
            surname,
            flaw: None,
        }
    }

    fn forenames(&mut self, family: &Family, woman: bool) -> String {
        let pool = if woman { family.women } else { family.men };
        let first = pick(&mut self.random, pool);
        let second = pick(&mut self.random, pool);
        if second == first || self.random.gen_bool(0.6) {
            first.to_owned()
        } else {
            format!("{first} {second}")
        }
    }

    fn title(&mut self, gender: &str, woman: bool) -> &'static str {
        let choices: &[(&str, u32)] = match (gender, woman) {
            ("F", _) => {
                &[("Ms", 400), ("Mrs", 320), ("Miss", 225), ("Dr", 40), ("Prof", 6), ("Rev", 5), ("Lady", 4)]
            }
            ("M", _) => &[("Mr", 940), ("Dr", 45), ("Prof", 6), ("Rev", 6), ("Sir", 3)],
            ("X", _) => &[("Mx", 95), ("Dr", 5)],
            (_, true) => &[("Ms", 50), ("Mx", 30), ("Dr", 20)],
            (_, false) => &[("Mr", 50), ("Mx", 30), ("Dr", 20)],
        };
        weighted(&mut self.random, choices)
    }

    fn known_as(&mut self, forenames: &str) -> Option<String> {
        let first = forenames.split(' ').next()?;
        let short = SHORT.iter().find(|(name, _)| *name == first)?.1;
        self.random.gen_bool(0.7).then(|| short.to_owned())
    }

    fn ni_number(&mut self) -> String {
        // No number was ever issued that begins with Q.
        let second = self.random.gen_range(b'A'..=b'Z');
        let last = self.random.gen_range(b'A'..=b'D');
        format!("Q{}{:06}{}", char::from(second), self.random.gen_range(0..1_000_000), char::from(last))
    }

    fn continuous_service(&mut self, start: Date) -> Date {
        if !self.random.gen_ratio(1, 12) {
            return start;
        }
        let days: i32 = self.random.gen_range(200..2_000);
        start.saturating_sub(days.days())
    }

    fn mailbox(&mut self, forenames: &str, surname: &str) -> String {
        let first = forenames.split(' ').next().unwrap_or_default();
        let name = format!("{}.{}", ascii(first), ascii(surname));
        let times = self.mailboxes.entry(name.clone()).or_default();
        *times += 1;
        if *times == 1 { name } else { format!("{name}{times}") }
    }

    fn domain(&mut self, kind: &str) -> &'static str {
        match kind {
            "work" => "kestrel-mutual.example",
            "services" => "services.kestrel-mutual.example",
            _ => pick(&mut self.random, &["example.com", "example.org", "example.net", "mail.example"]),
        }
    }

    fn emails(&mut self, forenames: &str, surname: &str) -> Vec<(&'static str, String)> {
        let mailbox = self.mailbox(forenames, surname);
        ["home", "work", "services"].map(|kind| (kind, format!("{mailbox}@{}", self.domain(kind)))).into()
    }

    fn phones(&mut self, place: &Place) -> Vec<(&'static str, String)> {
        let mut phones = vec![("mobile", format!("07700 900{:03}", self.random.gen_range(0..1000)))];
        if self.random.gen_bool(0.4) {
            phones.push(("home", format!("{}{:03}", place.telephone, self.random.gen_range(0..1000))));
        }
        if self.random.gen_bool(0.5) {
            phones.push(("emergency", format!("07700 900{:03}", self.random.gen_range(0..1000))));
        }
        phones
    }

    fn addresses(&mut self, place: &Place, start: Date) -> Vec<Address> {
        let mut addresses = Vec::new();
        if self.random.gen_ratio(1, 6) {
            addresses.push(self.address(start));
            let between = (self.today - start).get_days().max(1);
            let moved: i32 = self.random.gen_range(0..between);
            addresses.push(self.address_in(place, start.saturating_add(moved.days())));
        } else {
            addresses.push(self.address_in(place, start));
        }
        addresses
    }

    fn address_in(&mut self, place: &Place, from_date: Date) -> Address {
        let street = pick(&mut self.random, &STREETS);
        let number = self.random.gen_range(1..180);
        let (first, second) = match self.random.gen_range(0..10) {
            0 => (format!("Flat {}", self.random.gen_range(1..40)), Some(format!("{number} {street}"))),
            1 => (pick(&mut self.random, &HOUSES).to_owned(), Some(street.to_owned())),
            2 => (format!("{number}A {street}"), None),
            _ => (format!("{number} {street}"), None),
        };
        let county = (!place.county.is_empty()).then(|| place.county.to_owned());
        let rest = [Some(place.town.to_owned()), county].into_iter().flatten();
        let mut lines = std::iter::once(first).chain(second).chain(rest);
        // The inward code's letters: C, I, K, M, O and V are not used.
        let letters: String =
            (0..2).map(|_| char::from(pick(&mut self.random, b"ABDEFGHJLNPQRSTUWXYZ"))).collect();
        let district = pick(&mut self.random, place.districts);
        Address {
            lines: [lines.next(), lines.next(), lines.next(), lines.next()],
            postcode: format!("{district} {}{letters}", self.random.gen_range(0..10)),
            from_date,
        }
    }
}

/// Makes a record one that will be refused.
fn spoil(person: &mut Person, flaw: Flaw) {
    match flaw {
        Flaw::NoTitle => person.title = None,
        Flaw::UnknownTitle => person.title = Some("Wing Cdr".to_owned()),
        Flaw::NoPay => person.jobs.iter_mut().for_each(|job| job.pay.clear()),
        Flaw::UnknownReason => {
            person.jobs.iter_mut().flat_map(|job| &mut job.pay).for_each(|pay| pay.change_reason = "TUPE");
        }
        Flaw::NoEmail => person.emails.clear(),
        Flaw::BadNationalInsurance => person.ni_number = Some("TBC".to_owned()),
        Flaw::UnmappedLevel => person.benefits_level = Some("Legacy B"),
    }
    person.flaw = Some(flaw);
}

/// A name as the local part of an email spells it.
fn ascii(name: &str) -> String {
    let mut mailbox = String::with_capacity(name.len());
    for letter in name.chars().flat_map(char::to_lowercase) {
        match letter {
            'a'..='z' | '-' => mailbox.push(letter),
            other => mailbox.push_str(folded(other)),
        }
    }
    mailbox
}

fn family(random: &mut StdRng) -> &'static Family {
    let mut at = random.gen_range(0..1000_u32);
    for family in &FAMILIES {
        if at < family.weight {
            return family;
        }
        at -= family.weight;
    }
    pick_ref(random, &FAMILIES)
}

fn weighted(random: &mut StdRng, choices: &[(&'static str, u32)]) -> &'static str {
    choices.choose_weighted(random, |(_, weight)| *weight).map_or("", |(value, _)| value)
}

/// One of a fixed list.
pub(super) fn pick<T: Copy>(random: &mut StdRng, list: &[T]) -> T {
    *pick_ref(random, list)
}

#[expect(clippy::indexing_slicing, reason = "the lists are constants with something in them")]
fn pick_ref<'a, T>(random: &mut StdRng, list: &'a [T]) -> &'a T {
    &list[random.gen_range(0..list.len())]
}

#[cfg(test)]
mod tests;
