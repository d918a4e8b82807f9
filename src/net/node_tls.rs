//! TLS to the nodes of a proxy: what its file of routes names becomes what a connection starts from.

use std::path::Path;
use std::sync::Arc;

use client_core::options::ClientOptions;
use rustls::crypto::ring;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::tls_files::{certificates, key};
use crate::proxy::NodeTls;

/// Loads what a pool names. The error is the word, the file and the reason.
pub(crate) fn load(tls: &NodeTls, options: ClientOptions) -> Result<ClientOptions, String> {
    let told =
        |word: &str, file: &Path, reason: String| format!("{word}: {}: {reason}", file.display());
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let all = certificates(&tls.ca).map_err(|reason| told("tls_ca", &tls.ca, reason))?;
    for root in all {
        let added = roots.add(root);
        added.map_err(|error| told("tls_ca", &tls.ca, error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?
        .with_root_certificates(roots);
    let config = match &tls.own {
        None => builder.with_no_client_auth(),
        Some((cert, key_file)) => {
            let chain = certificates(cert).map_err(|reason| told("tls_cert", cert, reason))?;
            let key = key(key_file, &provider);
            let key = key.map_err(|reason| told("tls_key", key_file, reason))?;
            let own = CertifiedKey::new(chain, key);
            if let Err(
                error @ rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch),
            ) = own.keys_match()
            {
                return Err(told("tls_key", key_file, error.to_string()));
            }
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
        }
    };
    Ok(options.tls(Arc::new(config), tls.name.clone()))
}
