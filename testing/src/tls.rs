//! TLS for the tests: certificates made on the spot, and connections that are plain for whoever holds them.
//!
//! ```text
//!  test <-> Conn <-> socket pair <-> two threads with a rustls client <-> server
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SigningKey, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::{Conn, PATIENCE};

pub use rustls::version::{TLS12, TLS13};

/// Both versions that are spoken.
pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Somebody who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, PEM.
pub struct Cert {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a root certificate"))
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for `localhost`, for a server or a client.
    pub fn issue(&self) -> Cert {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.0).expect("a signature");
        Cert {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Signs bytes with its key.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.key().sign(bytes).expect("a signature")
    }

    /// What a client starts from that trusts this authority, and shows `cert` if it has one.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        cert: Option<&Cert>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions that ring has")
            .with_root_certificates(roots);
        let config = match cert {
            None => config.with_no_client_auth(),
            Some(Cert { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                // Not checked by rustls, which knows no certificates of version 1.
                let key = ring::sign::any_supported_type(&key).expect("a key of ring's");
                let pair = CertifiedKey::new(vec![cert], key);
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
            }
        };
        Arc::new(config)
    }
}

/// A certificate that nobody else has signed, as `openssl req -x509` makes it, valid for these years.
pub fn self_signed(from_year: i32, to_year: i32) -> Cert {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["client".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(from_year, 1, 1);
    params.not_after = date_time_ymd(to_year, 1, 1);
    Cert {
        cert: params.self_signed(&key).expect("a signature").pem(),
        key: key.serialize_pem(),
    }
}

/// DER as a block of PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0, |bits, i| {
                bits << 8 | u32::from(group.get(i).copied().unwrap_or(0))
            });
            for i in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char;
                text.push(if i <= group.len() { digit } else { '=' });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

impl Cert {
    /// Writes `cert.pem` and `key.pem` to a directory.
    pub fn write(&self, dir: &Path) {
        fs::write(dir.join("cert.pem"), &self.cert).expect("a file");
        fs::write(dir.join("key.pem"), &self.key).expect("a file");
    }
}

/// Connects and does the handshake.
pub fn handshake(
    port: u16,
    config: &Arc<ClientConfig>,
) -> io::Result<(ClientConnection, TcpStream)> {
    let mut socket =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut tls = client(config);
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok((tls, socket))
}

/// The client's side of a connection that nothing has been sent on.
pub fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(config.clone(), name).expect("a client");
    tls.set_buffer_limit(None);
    tls
}

/// A connection as the other tests know them, with TLS underneath.
pub fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<Conn> {
    let (tls, socket) = handshake(port, config)?;
    // The deadlines are those of the socket pair from here on.
    socket.set_read_timeout(None)?;
    let (near, far) = UnixStream::pair()?;
    let tls = Arc::new(Mutex::new(tls));
    let up = (far.try_clone()?, socket.try_clone()?, tls.clone());
    // Both end when either side hangs up; their errors are the connection's end.
    thread::spawn(move || encrypt(up.0, up.1, &up.2));
    thread::spawn(move || {
        let _ = decrypt(&far, socket, &tls);
        let _ = far.shutdown(Shutdown::Write);
    });
    Ok(Conn::unix(near, &format!("tls port {port}")))
}

fn encrypt(
    mut from: UnixStream,
    mut to: TcpStream,
    tls: &Mutex<ClientConnection>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut chunk)?;
        let mut records = Vec::new();
        {
            let mut tls = tls.lock().expect("no panic in the other thread");
            if n == 0 {
                tls.send_close_notify();
            } else {
                tls.writer().write_all(&chunk[..n])?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut records)?;
            }
        }
        // Not under the lock: the server may want its replies read first.
        to.write_all(&records)?;
        if n == 0 {
            return to.shutdown(Shutdown::Write);
        }
    }
}

fn decrypt(
    mut to: &UnixStream,
    mut from: TcpStream,
    tls: &Mutex<ClientConnection>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        let mut records = &chunk[..n];
        while !records.is_empty() {
            let mut text = Vec::new();
            {
                let mut tls = tls.lock().expect("no panic in the other thread");
                if tls.read_tls(&mut records)? == 0 {
                    return Ok(());
                }
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                text.resize(state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut text)?;
            }
            to.write_all(&text)?;
        }
    }
}
