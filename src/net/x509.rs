//! What a certificate says, as far as rustls keeps it to itself: its version, its dates and its key.
//!
//! rustls reads certificates of version 3 alone, and takes no self-signed one for a client's. OpenSSL does both, so there
//! are such certificates. The fields are found in the order of RFC 5280, section 4.1; nothing here decides whom to trust.
//!
//! X1. Whatever the bytes are, reading them ends, and looks at none outside of them: they come from clients.

/// DER's tags of what is read here.
mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    /// `[0]`, where a version stands.
    pub const VERSION: u8 = 0xa0;
}

/// A row of DER's elements: tag, length, content.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag, all of it, and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (len, len_bytes) = match first {
            0..=0x7f => (usize::from(*first), 0),
            // 0x80 is a length that DER does not have; more bytes than four are more than there can be.
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let bytes = rest.get(..count)?;
                let len = bytes
                    .iter()
                    .fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, count)
            }
            _ => return None,
        };
        let start = 2 + len_bytes;
        let end = start.checked_add(len)?;
        let whole = self.0.get(..end)?;
        self.0 = &self.0[end..];
        Some((*tag, whole, &whole[start..]))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let mut after = *self;
        let (tag, _, content) = after.next()?;
        (tag == wanted).then(|| {
            *self = after;
            content
        })
    }
}

/// A certificate's fields. Names, algorithms and signatures are as they were encoded, without their tag and length.
pub(super) struct Certificate<'a> {
    /// What the issuer has signed.
    pub signed: &'a [u8],
    /// 1 to 3.
    pub version: u8,
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    /// Seconds since 1970: the first and the last at which it holds.
    pub valid_s: (i64, i64),
    /// The public key with its algorithm, tag and length included.
    pub key_info: &'a [u8],
    pub key_algorithm: &'a [u8],
    pub key: &'a [u8],
    pub signature_algorithm: &'a [u8],
    pub signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate; `None` if it is none.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let mut fields = Der(Der(der).take(tag::SEQUENCE)?);
        let (of_signed, signed, inner) = fields.next()?;
        let signature_algorithm = fields.take(tag::SEQUENCE)?;
        let signature = bits(fields.take(tag::BIT_STRING)?)?;
        let mut inner = (of_signed == tag::SEQUENCE).then_some(Der(inner))?;
        let version = match inner.take(tag::VERSION) {
            None => 1,
            Some(version) => match Der(version).take(tag::INTEGER)? {
                [number @ 0..=2] => number + 1,
                _ => return None,
            },
        };
        inner.take(tag::INTEGER)?;
        inner.take(tag::SEQUENCE)?;
        let issuer = inner.take(tag::SEQUENCE)?;
        let mut valid = Der(inner.take(tag::SEQUENCE)?);
        let valid_s = (time(&mut valid)?, time(&mut valid)?);
        let subject = inner.take(tag::SEQUENCE)?;
        let (of_key, key_info, key) = inner.next()?;
        let mut key = (of_key == tag::SEQUENCE).then_some(Der(key))?;
        Some(Certificate {
            signed,
            version,
            issuer,
            subject,
            valid_s,
            key_info,
            key_algorithm: key.take(tag::SEQUENCE)?,
            key: bits(key.take(tag::BIT_STRING)?)?,
            signature_algorithm,
            signature,
        })
    }
}

/// The first element, without what stands behind it: OpenSSL's trusted certificates end with what they are trusted for.
pub(super) fn first_element(der: &[u8]) -> Option<&[u8]> {
    Der(der).next().map(|(_, whole, _)| whole)
}

/// How a private key is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyEncoding {
    Pkcs1,
    Pkcs8,
    Sec1,
}

impl KeyEncoding {
    /// By what follows the version: a number (RSA's modulus), an algorithm, or the bytes of a secret.
    pub fn of(der: &[u8]) -> Option<Self> {
        let mut fields = Der(Der(der).take(tag::SEQUENCE)?);
        fields.take(tag::INTEGER)?;
        match fields.next()?.0 {
            tag::INTEGER => Some(KeyEncoding::Pkcs1),
            tag::SEQUENCE => Some(KeyEncoding::Pkcs8),
            tag::OCTET_STRING => Some(KeyEncoding::Sec1),
            _ => None,
        }
    }
}

/// A bit string of whole bytes, as all of those here are.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, bytes @ ..] => Some(bytes),
        _ => None,
    }
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` in seconds since 1970.
fn time(der: &mut Der<'_>) -> Option<i64> {
    let (tag, _, text) = der.next()?;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = digits.get(from..from + len)?;
        Some(
            digits
                .iter()
                .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')),
        )
    };
    let (year, rest) = match (tag, digits.len()) {
        // Two digits mean 1950 to 2049 (RFC 5280, section 4.1.2.5.1).
        (tag::UTC_TIME, 12) => match number(0, 2)? {
            year @ 50.. => (1900 + year, 2),
            year => (2000 + year, 2),
        },
        (tag::GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(rest, 2)?, number(rest + 2, 2)?);
    let (hour, minute, second) = (
        number(rest + 4, 2)?,
        number(rest + 6, 2)?,
        number(rest + 8, 2)?,
    );
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day last: the days before a month follow from one line.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    const DAYS_TO_1970: i64 = 719_468;
    Some(((days - DAYS_TO_1970) * 24 + hour) * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn times_count_from_1970() {
        for (tag, text, seconds) in [
            (tag::UTC_TIME, "700101000000Z", Some(0)),
            (tag::UTC_TIME, "691231235959Z", Some(-1)),
            (tag::UTC_TIME, "000229120000Z", Some(951_825_600)),
            (tag::UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (
                tag::GENERALIZED_TIME,
                "20500101000000Z",
                Some(2_524_608_000),
            ),
            (tag::GENERALIZED_TIME, "20380119031408Z", Some(1 << 31)),
            (tag::UTC_TIME, "700101000000", None),
            (tag::UTC_TIME, "701301000000Z", None),
            (tag::UTC_TIME, "7001010000Z", None),
            (tag::UTC_TIME, "70010100000xZ", None),
            (tag::INTEGER, "700101000000Z", None),
        ] {
            let der = [&[tag, text.len() as u8], text.as_bytes()].concat();
            assert_eq!(time(&mut Der(&der)), seconds, "{text}");
        }
    }

    #[test]
    fn a_certificate_tells_its_fields_and_no_part_of_one_is_one() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(2060, 1, 1);
        let made = params.self_signed(&key).unwrap();
        let der = made.der();
        let cert = Certificate::parse(der).unwrap();
        assert_eq!(cert.version, 3);
        assert_eq!(cert.issuer, cert.subject);
        assert_eq!(cert.valid_s, (999_993_600, 2_840_140_800));
        assert!(cert.key_info.ends_with(cert.key) && cert.key.len() == 65);
        assert!(cert.signed.len() < der.len());
        for end in 0..der.len() {
            assert!(Certificate::parse(&der[..end]).is_none(), "{end} bytes");
        }
        // Any byte may be another: no panic (X1).
        for at in 0..der.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut other = der.to_vec();
                other[at] ^= flip;
                let _ = Certificate::parse(&other);
                let _ = KeyEncoding::of(&other);
            }
        }
        let trusted = [&der[..], b"what it is trusted for"].concat();
        assert_eq!(first_element(&trusted), Some(&der[..]));
        assert_eq!(
            KeyEncoding::of(&key.serialize_der()),
            Some(KeyEncoding::Pkcs8)
        );
    }
}
