//! Whether a client's certificate holds.
//!
//! rustls decides for certificates of version 3 that a root has signed, directly or through others. Two kinds that OpenSSL
//! takes and rustls does not are decided here, when rustls has refused:
//!
//! - a self-signed certificate that stands in the file of the roots, byte by byte;
//! - a certificate of version 1, as `openssl x509 -req` made them for years, that a root has signed itself.
//!
//! Cc1. Both are asked for their dates; that the client holds the key is shown by the handshake, as for all others.
//! Cc2. Without roots no certificate holds.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::x509::Certificate;

/// What is asked of a client's certificate.
pub(super) struct Verifier {
    /// rustls's own; `None` without roots.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
    /// The file of the roots.
    roots: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
    required: bool,
}

impl Verifier {
    /// A verifier by these roots; `required` refuses a client that shows no certificate.
    pub fn new(
        roots: Arc<[CertificateDer<'static>]>,
        provider: &Arc<CryptoProvider>,
        required: bool,
    ) -> Result<Self, String> {
        let webpki = if roots.is_empty() {
            None
        } else {
            let mut store = RootCertStore::empty();
            for root in roots.iter() {
                store.add(root.clone()).map_err(|error| error.to_string())?;
            }
            let builder =
                WebPkiClientVerifier::builder_with_provider(store.into(), provider.clone());
            Some(builder.build().map_err(|error| error.to_string())?)
        };
        Ok(Verifier {
            webpki,
            roots,
            algorithms: provider.signature_verification_algorithms,
            required,
        })
    }

    /// Whether it is one of the two kinds that rustls does not take.
    fn holds_otherwise(&self, der: &[u8], now: UnixTime) -> bool {
        let Some(cert) = Certificate::parse(der) else {
            return false;
        };
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let is_listed =
            || cert.issuer == cert.subject && self.roots.iter().any(|root| **root == *der);
        let (from, to) = cert.valid_s;
        (from..=to).contains(&now) && (is_listed() || self.is_signed_by_root(&cert))
    }

    fn is_signed_by_root(&self, cert: &Certificate<'_>) -> bool {
        let issuers = self
            .roots
            .iter()
            .filter_map(|root| Certificate::parse(root));
        cert.version < 3
            && issuers
                .filter(|issuer| issuer.subject == cert.issuer)
                .any(|issuer| {
                    let fits = self.algorithms.all.iter().filter(|algorithm| {
                        *algorithm.public_key_alg_id() == *issuer.key_algorithm
                            && *algorithm.signature_alg_id() == *cert.signature_algorithm
                    });
                    fits.into_iter().any(|algorithm| {
                        let verified =
                            algorithm.verify_signature(issuer.key, cert.signed, cert.signature);
                        verified.is_ok()
                    })
                })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (roots, required) = (self.roots.len(), self.required);
        write!(f, "Verifier {{ roots: {roots}, required: {required} }}")
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki
            .as_ref()
            .map_or(&[], |webpki| webpki.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = match &self.webpki {
            None => Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Some(webpki) => match webpki.verify_client_cert(end_entity, intermediates, now) {
                Ok(verified) => return Ok(verified),
                Err(refused) => refused,
            },
        };
        if self.holds_otherwise(end_entity, now) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match old(cert) {
            None => verify_tls12_signature(message, cert, signed, &self.algorithms),
            Some(cert) => {
                let of_scheme = |(scheme, _): &&(SignatureScheme, _)| *scheme == signed.scheme;
                let mapped = self.algorithms.mapping.iter().find(of_scheme);
                let mut algorithms = mapped.into_iter().flat_map(|(_, algorithms)| *algorithms);
                let is_valid = algorithms.any(|algorithm| {
                    *algorithm.public_key_alg_id() == *cert.key_algorithm
                        && algorithm
                            .verify_signature(cert.key, message, signed.signature())
                            .is_ok()
                });
                if is_valid {
                    Ok(HandshakeSignatureValid::assertion())
                } else {
                    Err(Error::InvalidCertificate(CertificateError::BadSignature))
                }
            }
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match old(cert) {
            None => verify_tls13_signature(message, cert, signed, &self.algorithms),
            Some(cert) => {
                let key = SubjectPublicKeyInfoDer::from(cert.key_info);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate of a version that rustls does not read.
fn old<'a>(cert: &'a CertificateDer<'_>) -> Option<Certificate<'a>> {
    Certificate::parse(cert).filter(|cert| cert.version < 3)
}

/// Why a handshake came to nothing, if it was for the client's certificate: a line for the log, with the way out.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let (why, way_out) = match error {
        Error::NoCertificatesPresented => ("it has shown none".to_owned(), ""),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
            "no root of ssl_ca_cert has signed it".to_owned(),
            "; add its issuer to that file (a self-signed one: itself)",
        ),
        Error::InvalidCertificate(why) => {
            let way_out = if format!("{why:?}").contains("UnsupportedCertVersion") {
                "; have it issued again as version 3: openssl x509 -req .. -extfile FILE, with a line \
                 extendedKeyUsage=clientAuth in FILE"
            } else {
                ""
            };
            (why.to_string(), way_out)
        }
        _ => return None,
    };
    Some(format!("client certificate refused: {why}{way_out}"))
}
