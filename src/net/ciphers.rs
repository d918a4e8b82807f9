//! `-o ssl_ciphers`: OpenSSL's list of ciphers, as far as it means those that rustls has.
//!
//! The list is about TLS 1.2, as in OpenSSL; the ciphers of TLS 1.3 are always offered. There are six of TLS 1.2 here, all
//! with ECDHE and authenticated encryption, so that most words of a list select all of them or none.

use rustls::{CipherSuite, SupportedCipherSuite};

/// OpenSSL's name of a suite, and the words that mean it among others.
const KNOWN: [(CipherSuite, &str, &[&str]); 6] = [
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        &["AECDSA", "ECDSA", "AES", "AESGCM", "AES256", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        &["AECDSA", "ECDSA", "AES", "AESGCM", "AES128", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        &["AECDSA", "ECDSA", "CHACHA20"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        &["ARSA", "AES", "AESGCM", "AES256", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        &["ARSA", "AES", "AESGCM", "AES128", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        &["ARSA", "CHACHA20"],
    ),
];

/// Words that mean all six.
const ALL: [&str; 9] = [
    "ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "KECDHE", "KEECDH", "TLSV1.2", "AEAD",
];

/// Leaves in `suites` what `list` selects, in its order. Returns the words that select nothing here, or the error that
/// nothing is left.
pub(super) fn select(
    list: &str,
    suites: &mut Vec<SupportedCipherSuite>,
) -> Result<Vec<String>, String> {
    let (mut chosen, mut banned, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let (sign, name) = match word.as_bytes()[0] {
            sign @ (b'!' | b'-' | b'+' | b'@') => (sign, &word[1..]),
            _ => (b' ', word),
        };
        let found: Vec<_> = KNOWN
            .iter()
            .filter(|(_, full, words)| means(name, full, words))
            .map(|(suite, ..)| *suite)
            .collect();
        match sign {
            b'!' => banned.extend(found),
            b'-' => chosen.retain(|suite| !found.contains(suite)),
            // An order by strength, or other places: all of these are strong.
            b'+' | b'@' => {}
            _ if found.is_empty() => {
                // What is always offered is no word that selects nothing.
                if !name.starts_with("TLS_") {
                    unknown.push(word.to_owned());
                }
            }
            _ => chosen.extend(found),
        }
    }
    chosen.retain(|suite| !banned.contains(suite));
    if chosen.is_empty() {
        let names: Vec<_> = KNOWN.iter().map(|(_, name, _)| *name).collect();
        return Err(format!(
            "none of these ciphers is spoken; those of TLS 1.2 are {}",
            names.join(", ")
        ));
    }
    let rank = |suite: &SupportedCipherSuite| chosen.iter().position(|own| *own == suite.suite());
    suites.retain(|suite| suite.tls13().is_some() || rank(suite).is_some());
    // Stable, and those of TLS 1.3 first.
    suites.sort_by_key(rank);
    Ok(unknown)
}

/// Whether `name`, words joined by `+`, means a suite.
fn means(name: &str, full: &str, words: &[&str]) -> bool {
    name.split('+').all(|part| {
        let part = part.to_ascii_uppercase();
        part == full || ALL.contains(&&*part) || words.contains(&&*part)
    })
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;

    use super::*;

    /// OpenSSL's names of what is left of TLS 1.2, shortened, and the words that were not known.
    fn selected(list: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let mut suites = ring::default_provider().cipher_suites;
        let unknown = select(list, &mut suites)?;
        assert_eq!(
            suites
                .iter()
                .filter(|suite| suite.tls13().is_some())
                .count(),
            3,
            "those of TLS 1.3 stay"
        );
        let names = suites.iter().filter_map(|suite| {
            let known = KNOWN.iter().find(|(own, ..)| *own == suite.suite());
            known.map(|(_, name, _)| name.trim_start_matches("ECDHE-").to_owned())
        });
        Ok((names.collect(), unknown))
    }

    #[test]
    fn a_list_selects_by_names_words_and_signs() {
        let all = 6;
        for (list, count) in [
            ("DEFAULT", all),
            ("HIGH:!aNULL:!MD5", all),
            ("ALL:!EXPORT:!LOW:@STRENGTH", all),
            ("ECDHE+AESGCM", 4),
            ("ECDHE+AESGCM:ECDHE+CHACHA20", all),
            ("HIGH:!CHACHA20", 4),
            ("HIGH:-aRSA", 3),
            ("EECDH+aRSA+AES256", 1),
        ] {
            let (names, unknown) = selected(list).unwrap();
            assert_eq!(
                (names.len(), unknown.len()),
                (count, 0),
                "{list}: {names:?}"
            );
        }
        let list = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:AES256-SHA:TLS_AES_128_GCM_SHA256";
        assert_eq!(
            selected(list).unwrap(),
            (
                vec![
                    "RSA-AES128-GCM-SHA256".to_owned(),
                    "RSA-AES256-GCM-SHA384".to_owned()
                ],
                vec!["AES256-SHA".to_owned()]
            )
        );
        for list in ["", "AES256-SHA", "HIGH:!ECDHE", "DES-CBC3-SHA:RC4"] {
            let err = selected(list).unwrap_err();
            assert!(err.contains("ECDHE-RSA-AES256-GCM-SHA384"), "{list}: {err}");
        }
    }
}
