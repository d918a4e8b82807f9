//! How much of the memory limit holds keys and values, size by size: `--sweep`.

use std::time::Instant;

use super::load::{fraction, key};
use super::plot::Panel;
use super::{Options, Target};

/// The sizes of values that are tried unless `--sizes` names others: bytes, or from the first to the second as likely for each
/// octave.
const SIZES: [&str; 24] = [
    "10",
    "50",
    "100",
    "200",
    "500",
    "1000",
    "1500",
    "2000",
    "3000",
    "4000",
    "5500",
    "7500",
    "10000",
    "12000",
    "17000",
    "23000",
    "28000",
    "33000",
    "100000",
    "500000",
    "100-8000",
    "300-24000",
    "1-100000",
    "1-1000000",
];

/// Memory is filled so many times over.
const TIMES: f64 = 2.0;

/// What is stored under a number: its length.
struct Lengths(f64, f64);

impl Lengths {
    fn parse(text: &str) -> Lengths {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse().expect("sizes are BYTES or LOW-HIGH");
        Lengths(number(low), number(high))
    }

    fn of(&self, n: u32) -> usize {
        (self.0 * (self.1 / self.0).powf(fraction(u64::from(n)))) as usize
    }
}

/// The bytes of keys and values that are there when so many have been stored, as a part of `megabytes`.
fn share(target: &mut dyn Target, lengths: &Lengths, megabytes: usize) -> f64 {
    let limit = (megabytes << 20) as f64;
    let (mut stored, mut count) = (0.0, 0);
    while stored < limit * TIMES {
        let key = key(0, count);
        target.set(&key, lengths.of(count));
        stored += (lengths.of(count) + key.len()) as f64;
        count += 1;
    }
    let bytes = |n| {
        let key = key(0, n);
        if target.get(&key) {
            lengths.of(n) + key.len()
        } else {
            0
        }
    };
    (0..count).map(bytes).sum::<usize>() as f64 / limit
}

/// Prints the table; gives a panel for each memory limit.
pub fn sweep(options: &Options) -> Vec<Panel> {
    let sizes: Vec<&str> = match &options.sweep_sizes[..] {
        [] => SIZES.to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    let mut panels = Vec::new();
    for &megabytes in &options.limits {
        let mut panel = Panel {
            title: format!("-m {megabytes}: keys and values"),
            x_label: "bytes of values".into(),
            x_names: sizes.iter().map(|&size| size.to_owned()).collect(),
            x_marks: (0..sizes.len()).map(|n| n as f64).collect(),
            by_rank: true,
            ..Panel::default()
        };
        let targets = options.targets();
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        panel.lines = names
            .iter()
            .map(|name| (name.clone(), Vec::new()))
            .collect();
        println!("\n-m {megabytes}: part of it that holds keys and values\n");
        println!("| value | {} |", names.join(" | "));
        println!("| --- |{}", " --- |".repeat(names.len()));
        for (n, size) in sizes.iter().enumerate() {
            let lengths = Lengths::parse(size);
            let mut row = Vec::new();
            for (line, (_, start)) in panel.lines.iter_mut().zip(&targets) {
                let began = Instant::now();
                let mut target = start(megabytes);
                let share = share(&mut *target, &lengths, megabytes);
                if options.report {
                    println!("{size}: {:.1} s", began.elapsed().as_secs_f64());
                    target.report();
                }
                row.push(format!("{share:.3}"));
                line.1.push((n as f64, share * 100.0));
            }
            println!("| {size} | {} |", row.join(" | "));
        }
        panels.push(panel);
    }
    panels
}
