//! `ketchctl ring` as a process, against what libmemcached chose (client/tests/data).

use std::path::Path;

use super::run::{ketchctl, stdout};

/// The columns of the lists and the names of the distributions they show.
const MODES: [(&str, &str); 5] = [
    ("weighted", "ketama-weighted"),
    ("weighted_default", "ketama-weighted-default"),
    ("ketama", "ketama"),
    ("ketama_md5", "ketama-md5"),
    ("modula", "modula"),
];

/// The cells of the lines of a list, those of its servers and those of its table with the heading.
fn list(file: &Path) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(file).expect("the vectors are part of the client crate");
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let servers = text.lines().filter(|line| line.starts_with("#server"));
    let table = text.lines().filter(|line| !line.starts_with('#'));
    (servers.map(cells).collect(), table.map(cells).collect())
}

#[test]
fn every_list_in_every_mode() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/tests/data");
    let mut seen = 0;
    for directory in ["ketama", "ketama-more"] {
        for entry in std::fs::read_dir(data.join(directory))
            .expect("the vectors are part of the client crate")
        {
            let file = entry.unwrap().path();
            let (servers, table) = list(&file);
            if servers.is_empty() {
                continue;
            }
            seen += 1;
            let address = |s: &Vec<String>| match (s[2].starts_with('/'), s[2].contains(':')) {
                (true, _) => format!("unix:{}", s[2]),
                (false, true) => format!("[{}]:{}", s[2], s[3]),
                (false, false) => format!("{}:{}", s[2], s[3]),
            };
            let addresses: Vec<String> = servers.iter().map(address).collect();
            let weighted = addresses
                .iter()
                .zip(&servers)
                .map(|(address, s)| format!("{address}:{}", s[4]));
            let weighted = weighted.collect::<Vec<_>>().join(",");
            let keys: String = table[1..]
                .iter()
                .map(|row| format!("{}\n", row[0]))
                .collect();
            for (column, distribution) in MODES {
                let Some(cell) = table[0].iter().position(|name| name == column) else {
                    continue;
                };
                let expected: String = table[1..]
                    .iter()
                    .map(|row| {
                        format!(
                            "{}\t{}\n",
                            row[0],
                            addresses[row[cell].parse::<usize>().unwrap()]
                        )
                    })
                    .collect();
                let words = [
                    "ring",
                    "--servers",
                    &weighted,
                    "--distribution",
                    distribution,
                ];
                assert_eq!(
                    stdout(&words, &keys),
                    expected,
                    "{}, {distribution}",
                    file.display()
                );
                if distribution == "ketama-weighted" {
                    assert_eq!(stdout(&words[..3], &keys), expected, "the default");
                }
            }
        }
    }
    assert_eq!(seen, 14);
}

#[test]
fn options_of_the_placement() {
    let nodes = "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6";
    let keys: String = (0..300).map(|i| format!("{{user}}:{i}\n")).collect();
    let owners = |words: &[&str]| {
        let text = stdout(words, &keys);
        let mut owners: Vec<String> = text
            .lines()
            .map(|l| l.split_once('\t').unwrap().1.to_owned())
            .collect();
        owners.dedup();
        owners.len()
    };
    assert!(owners(&["ring", "-s", nodes]) > 100);
    assert_eq!(owners(&["ring", "-s", nodes, "--hash-tags"]), 1);
    let plain = stdout(&["ring", "-s", nodes], &keys);
    assert_ne!(stdout(&["ring", "-s", nodes, "--keep-port"], &keys), plain);
    assert_ne!(stdout(&["ring", "-s", nodes, "-d", "jump"], &keys), plain);
}

#[test]
fn wrong_words_end_it_with_2() {
    for words in [
        &[][..],
        &["dance"],
        &["ring"],
        &["ring", "--servers", "a:0"],
        &["ring", "--servers", "a", "--distribution", "x"],
        &["ring", "--servers", "a", "key"],
    ] {
        let output = ketchctl(words, Vec::new());
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.starts_with(b"ketchctl: "),
            "{words:?}"
        );
        assert_eq!(
            output.stderr.iter().filter(|b| **b == b'\n').count(),
            1,
            "{words:?}: {output:?}"
        );
    }
}

#[test]
fn help_names_everything() {
    assert!(stdout(&["--help"], "").contains("  ring "));
    let help = stdout(&["ring", "--help"], "");
    for word in [
        "--servers",
        "ketama-weighted-default",
        "jump",
        "--hash-tags",
        "--keep-port",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(stdout(&["--version"], "").starts_with("ketchctl "));
}
