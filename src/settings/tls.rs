//! `-Z` and the `ssl_..` options: how connections are encrypted.
//!
//! The numbers are memcached's and OpenSSL's. What only OpenSSL has (keys that are not PEM, versions before 1.2) is refused
//! by name.

use std::path::{Path, PathBuf};

use super::values::whole;

/// What a listener asks of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert {
    /// It is not asked for: `ssl_verify_mode` 0, `btls:`.
    Ignored,
    /// It is asked for, and must hold when there is one: `ssl_verify_mode` 1.
    Optional,
    /// Nobody comes in without one: `ssl_verify_mode` 2 and 3, `mtls:`.
    Required,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    V1_2,
    /// 1.3
    V1_3,
}

impl TlsVersion {
    /// Its name in `stats settings`.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::V1_2 => "tlsv1.2",
            TlsVersion::V1_3 => "tlsv1.3",
        }
    }
}

/// The options about TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `-Z`: TCP connections are encrypted, but for those of `notls:` listeners.
    pub enabled: bool,
    /// The server's certificate and those between it and its root, PEM.
    pub chain_cert: Option<PathBuf>,
    /// The private key, PEM; without it the key stands in the file of the certificates.
    pub key: Option<PathBuf>,
    /// The roots that client certificates go back to, PEM. Without it no client certificate holds.
    pub ca_cert: Option<PathBuf>,
    /// `ssl_ciphers` as given: OpenSSL's list, of which is taken what is spoken here.
    pub ciphers: Option<String>,
    /// `ssl_verify_mode` as given, 0 to 3.
    pub verify_mode: u8,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// Clients may resume a session.
    pub session_cache: bool,
    /// Bytes encrypted at once, and kept for a peer that reads slowly.
    pub wbuf_bytes: usize,
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            enabled: false,
            chain_cert: None,
            key: None,
            ca_cert: None,
            ciphers: None,
            verify_mode: 0,
            min_version: TlsVersion::V1_2,
            session_cache: false,
            wbuf_bytes: 16 << 10,
        }
    }
}

impl Tls {
    /// Where the private key is.
    pub fn key_file(&self) -> Option<&Path> {
        self.key.as_deref().or(self.chain_cert.as_deref())
    }

    /// What `ssl_verify_mode` asks of clients. 3 is 2: it differs where a connection can be negotiated again, which TLS
    /// 1.3 has not and rustls never does.
    pub fn client_cert(&self) -> ClientCert {
        match self.verify_mode {
            0 => ClientCert::Ignored,
            1 => ClientCert::Optional,
            _ => ClientCert::Required,
        }
    }

    /// What listeners do that say nothing of their own; `None` is plain text.
    pub fn of_listeners(&self) -> Option<ClientCert> {
        self.enabled.then(|| self.client_cert())
    }
}

/// The numbers of `ssl_min_version`; `None` is a version older than those that are spoken.
pub(super) fn min_version(value: &str) -> Result<Option<TlsVersion>, String> {
    Ok(match whole("ssl_min_version", value, 0..=3, "")? {
        3 => Some(TlsVersion::V1_3),
        2 => Some(TlsVersion::V1_2),
        _ => None,
    })
}

/// `ssl_keyformat`: OpenSSL's number of PEM, or its name.
pub(super) fn key_format(value: &str) -> Result<(), String> {
    if value == "1" || value.eq_ignore_ascii_case("pem") {
        Ok(())
    } else {
        Err("ssl_keyformat must be PEM (or 1); convert the key: openssl pkey -inform DER -in KEY -out NEW".to_owned())
    }
}
