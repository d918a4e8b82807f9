//! Certificates and private keys from PEM files, in all the clothes that OpenSSL reads them in.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::SigningKey;

use super::x509::{KeyEncoding, first_element};

/// The certificates in a file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    // OpenSSL's other names of the same; a trusted certificate has a part more at its end.
    let text = text(file)?
        .replace("TRUSTED CERTIFICATE-----", "CERTIFICATE-----")
        .replace("X509 CERTIFICATE-----", "CERTIFICATE-----");
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() {
        return Err(no_pem(file, "certificate", "x509", &text));
    }
    let whole = |cert: CertificateDer<'static>| match first_element(&cert) {
        Some(first) if first.len() < cert.len() => first.to_vec().into(),
        _ => cert,
    };
    Ok(all.into_iter().map(whole).collect())
}

/// The private key in a file.
pub(super) fn key(file: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let text = text(file)?;
    if text.contains("ENCRYPTED") {
        let file = file.display();
        return Err(format!(
            "it is encrypted, and ketch asks for no password; decrypt it: openssl pkey -in {file} -out NEW"
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => no_pem(file, "private key", "pkey", &text),
        error => error.to_string(),
    })?;
    let key = by_content(key);
    let unfit = unfit(key.secret_der());
    let loaded = provider.key_provider.load_private_key(key);
    loaded.map_err(|error| unfit.map_or_else(|| error.to_string(), str::to_owned))
}

fn text(file: &Path) -> Result<String, String> {
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    // Between the blocks stands what people have written, in any encoding.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The key as what it is, whatever its label says.
fn by_content(key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let der = key.secret_der();
    match KeyEncoding::of(der) {
        Some(KeyEncoding::Pkcs1) => PrivatePkcs1KeyDer::from(der.to_vec()).into(),
        Some(KeyEncoding::Pkcs8) => PrivatePkcs8KeyDer::from(der.to_vec()).into(),
        Some(KeyEncoding::Sec1) => PrivateSec1KeyDer::from(der.to_vec()).into(),
        None => key,
    }
}

/// Why a key is of no use here, by its size and the object identifiers in it, with the way out.
fn unfit(der: &[u8]) -> Option<&'static str> {
    // A key has some 600 bytes of 1024 bits, 1200 of 2048 and 2400 of 4096.
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    let is_rsa = der.windows(RSA.len()).any(|part| part == RSA)
        || KeyEncoding::of(der) == Some(KeyEncoding::Pkcs1);
    if is_rsa && !(1100..2700).contains(&der.len()) {
        return Some(
            "RSA keys have 2048 to 4096 bits here; make one (openssl genrsa 2048) and have it certified",
        );
    }
    const NEW: [&str; 4] = [
        "keys on the curve P-521 are not taken; make one on P-256 (openssl ecparam -name prime256v1 -genkey -noout) \
         and have it certified",
        "keys on the curve secp256k1 are not taken; make one on P-256 (openssl ecparam -name prime256v1 -genkey -noout) \
         and have it certified",
        "DSA keys are not taken; make one on P-256 (openssl ecparam -name prime256v1 -genkey -noout) and have it \
         certified",
        "keys with explicit curve parameters are not taken; name the curve: openssl ec -in KEY -param_enc named_curve",
    ];
    let identifiers: [&[u8]; 4] = [
        b"\x06\x05\x2b\x81\x04\x00\x23",
        b"\x06\x05\x2b\x81\x04\x00\x0a",
        b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01",
        // The field's type, which only stands where a curve is spelled out.
        b"\x06\x07\x2a\x86\x48\xce\x3d\x01\x01",
    ];
    let has = |identifier: &&[u8]| {
        der.windows(identifier.len())
            .any(|part| part == *identifier)
    };
    identifiers.iter().position(has).map(|at| NEW[at])
}

/// Why nothing was found in a file, with the way out if it is DER, which begins with a sequence. `command` is OpenSSL's.
fn no_pem(file: &Path, what: &str, command: &str, text: &str) -> String {
    if !text.starts_with('0') {
        return format!("no {what} in it");
    }
    let file = file.display();
    format!(
        "no {what} in it, as it is not PEM; convert it: openssl {command} -inform DER -in {file} -out NEW (of PKCS#12: \
         openssl pkcs12 -in {file} -out NEW -nodes)"
    )
}
