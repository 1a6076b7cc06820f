//! Jobs of an insurer and what they pay.

use jiff::civil::Date;
use rand::Rng;
use rand::rngs::StdRng;

use super::{People, pick};

/// Number of rows in `hr.department` and `hr.location` (sql/demo/schema.sql), whose ids count from 1.
pub(in crate::demo) const DEPARTMENTS: i32 = 24;
pub(in crate::demo) const LOCATIONS: i32 = 10;

/// A row of `hr.job` with its rows of `hr.job_pay`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of sql/demo/schema.sql")]
pub struct Job {
    pub is_primary: bool,
    pub title: &'static str,
    pub grade_id: i32,
    pub department_id: i32,
    pub location_id: i32,
    pub weekly_hours: &'static str,
    pub fte: &'static str,
    pub started_on: Date,
    pub pay: Vec<Pay>,
}

/// A row of `hr.job_pay`.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of sql/demo/schema.sql")]
pub struct Pay {
    pub effective_from: Date,
    pub annual_pay_pence: i64,
    pub basis: &'static str,
    pub frequency: &'static str,
    pub change_reason: &'static str,
}

impl Pay {
    /// Pounds and pence.
    pub fn annual_pay(&self) -> String {
        format!("{}.{:02}", self.annual_pay_pence / 100, self.annual_pay_pence % 100)
    }
}

/// Titles of jobs, and the grades (from, to) they are paid in.
const JOBS: [(&str, i32, i32); 26] = [
    ("Apprentice", 1, 1),
    ("Customer Service Adviser", 2, 3),
    ("Claims Handler", 2, 4),
    ("Senior Claims Handler", 4, 5),
    ("Complaints Investigator", 3, 4),
    ("Underwriter", 4, 5),
    ("Senior Underwriter", 5, 6),
    ("Actuarial Analyst", 4, 5),
    ("Actuary", 6, 7),
    ("Pricing Analyst", 4, 5),
    ("Software Engineer", 4, 6),
    ("Principal Engineer", 6, 7),
    ("Data Engineer", 4, 6),
    ("Security Analyst", 4, 6),
    ("Service Desk Technician", 2, 3),
    ("Payroll Administrator", 2, 4),
    ("People Partner", 5, 6),
    ("Management Accountant", 4, 5),
    ("Solicitor", 5, 7),
    ("Field Sales Representative", 3, 5),
    ("Marketing Executive", 3, 4),
    ("Facilities Co-ordinator", 2, 3),
    ("Chef de Partie", 2, 3),
    ("Fleet Driver", 2, 2),
    ("Internal Auditor", 4, 6),
    ("Director", 8, 8),
];

/// Lowest and highest pay of the grades, in pounds.
const PAY_BANDS: [(i64, i64); 8] = [
    (15_800, 19_000),
    (23_400, 27_500),
    (25_800, 32_000),
    (30_000, 41_000),
    (38_000, 54_000),
    (50_000, 72_000),
    (68_000, 98_000),
    (110_000, 260_000),
];

impl People {
    /// A job from `started_on` on, with its pay.
    pub fn job(&mut self, started_on: Date, is_primary: bool) -> Job {
        let (title, lowest, highest) = pick(&mut self.random, &JOBS);
        let grade_id = self.random.gen_range(lowest..=highest);
        let hourly = grade_id == 2 && self.random.gen_ratio(1, 3);
        let (basis, frequency) =
            if hourly { ("Per hour", "4-weekly") } else { ("Per annum", "Calendar monthly") };
        let (weekly_hours, fte) = pick(
            &mut self.random,
            &[
                ("37.5", "1"),
                ("37.5", "1"),
                ("37.5", "1"),
                ("40", "1"),
                ("30", "0.8"),
                ("22.5", "0.6"),
                ("18.75", "0.5"),
            ],
        );
        let mut job = Job {
            is_primary,
            title,
            grade_id,
            department_id: self.random.gen_range(1..=DEPARTMENTS),
            location_id: self.random.gen_range(1..=LOCATIONS),
            weekly_hours,
            fte,
            started_on,
            pay: Vec::new(),
        };
        let band = usize::try_from(grade_id - 1).ok().and_then(|grade| PAY_BANDS.get(grade));
        let (least, most) = band.copied().unwrap_or((25_000, 30_000));
        let mut pence = self.random.gen_range(least..=most) * 100;
        if self.random.gen_ratio(1, 5) {
            pence += self.random.gen_range(0..100_i64);
        }
        job.pay.push(Pay {
            effective_from: started_on,
            annual_pay_pence: pence,
            basis,
            frequency,
            change_reason: "Starter",
        });
        // A review each April since the last three, and now and then one that is agreed already for the next.
        for year in (self.today.year() - 2)..=(self.today.year() + 1) {
            let april = Date::new(year, 4, 1).unwrap_or(self.today);
            if april <= started_on || (april > self.today && !self.random.gen_ratio(1, 25)) {
                continue;
            }
            pence += pence * self.random.gen_range(10..60_i64) / 1000;
            let change_reason =
                pick(&mut self.random, &["Annual review", "Annual review", "Annual review", "Promotion"]);
            job.pay.push(Pay {
                effective_from: april,
                annual_pay_pence: pence,
                basis,
                frequency,
                change_reason,
            });
        }
        job
    }
}

/// The level that goes with a grade; some have none.
pub(super) fn level(grade: i32, random: &mut StdRng) -> Option<&'static str> {
    if random.gen_ratio(1, 15) {
        return None;
    }
    Some(match grade {
        1 => "Apprentice",
        2..=5 => "Standard",
        6..=7 => "Enhanced",
        _ => "Executive",
    })
}
