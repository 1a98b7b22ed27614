//! TLS for tests: certificates that are made once, and rustls over a blocking socket, for either side.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use tempfile::TempDir;

use super::lock;

/// Which sides speak TLS where a test does not say: `down`, `up` or `both`.
const SIDES: &str = "RINGGATE_TEST_TLS";

/// Whether clients speak TLS to the gateway in every test.
pub(crate) fn is_down() -> bool {
    std::env::var(SIDES).is_ok_and(|sides| ["down", "both"].contains(&sides.as_str()))
}

/// Whether the gateway speaks TLS to services in every test.
pub(crate) fn is_up() -> bool {
    std::env::var(SIDES).is_ok_and(|sides| ["up", "both"].contains(&sides.as_str()))
}

/// An authority of one's own, and files of certificates that it has signed.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let folder = TempDir::new().expect("a folder");
        // two of them are two
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(folder.path().join("ca.pem"), &pem).expect("it is written");
        Self { folder, issuer: Issuer::new(params, key), pem }
    }

    /// The one that all tests share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Self::new();
            authority.sign("server", &["localhost", "test", "127.0.0.1"]);
            authority
        })
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The file of its own certificate.
    pub(crate) fn ca(&self) -> String {
        self.path("ca.pem").display().to_string()
    }

    /// Makes FILE.pem and FILE.key, for these names.
    pub(crate) fn sign(&self, file: &str, names: &[&str]) {
        self.sign_with(file, names, |_| ());
    }

    /// The same with something else about it.
    pub(crate) fn sign_with(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        write_anew(&self.path(&format!("{file}.key")), &key.serialize_pem());
        write_anew(&self.path(&format!("{file}.pem")), &signed.pem());
    }

    /// `{ chain, key }` of these files, as the configuration writes it.
    pub(crate) fn files(&self, file: &str) -> String {
        let (chain, key) = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        format!("{{ chain = \"{}\", key = \"{}\" }}", chain.display(), key.display())
    }

    /// `tls` of a listener with this certificate.
    pub(crate) fn listener(&self, file: &str) -> String {
        format!("tls = {{ certificates = [{}] }}\n", self.files(file))
    }

    /// What a client believes.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")).expect("a root");
        roots
    }

    /// Rules of a client that believes it.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::new(ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth())
    }

    /// A revocation list with this number in it.
    pub(crate) fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2040, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    /// What stands in these files.
    pub(crate) fn pair(&self, file: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(self.path(&format!("{file}.pem"))).expect("PEM");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        (chain, PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).expect("PEM"))
    }

    /// Rules of a server with the certificate of these files.
    pub(crate) fn server(&self, file: &str) -> Arc<ServerConfig> {
        let (chain, key) = self.pair(file);
        let rules = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        Arc::new(rules.expect("they belong together"))
    }
}

/// Writes a file as renewals do: another one in its place.
pub(crate) fn write_anew(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("it is written");
    std::fs::rename(&beside, path).expect("it is moved");
}

/// One session over a blocking socket. One thread may read while another writes.
pub(crate) struct Session {
    pub(crate) socket: TcpStream,
    connection: Mutex<Connection>,
    /// Received by who reads, and not looked at.
    unread: Mutex<Vec<u8>>,
    /// Held by who writes to the socket, so that records keep their order.
    writing: Mutex<()>,
}

impl Session {
    /// Asks for `name`, with whatever rules.
    pub(crate) fn connect(socket: TcpStream, rules: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Self::shake(socket, ClientConnection::new(rules, name).map_err(io::Error::other)?.into())
    }

    /// Serves who has connected.
    pub(crate) fn accept(socket: TcpStream, rules: Arc<ServerConfig>) -> io::Result<Self> {
        Self::shake(socket, ServerConnection::new(rules).map_err(io::Error::other)?.into())
    }

    fn shake(socket: TcpStream, mut connection: Connection) -> io::Result<Self> {
        while connection.is_handshaking() {
            connection.complete_io(&mut &socket)?;
        }
        while connection.wants_write() {
            connection.write_tls(&mut &socket)?;
        }
        Ok(Self { socket, connection: Mutex::new(connection), unread: Mutex::default(), writing: Mutex::new(()) })
    }

    /// Asks something of the connection.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Connection) -> T) -> T {
        ask(&lock(&self.connection))
    }

    /// Says that nothing more will come.
    pub(crate) fn end(&self) {
        let _ = self.send(|connection| {
            connection.send_close_notify();
            Ok(())
        });
    }

    fn send(&self, make: impl FnOnce(&mut Connection) -> io::Result<()>) -> io::Result<()> {
        let _in_order = lock(&self.writing);
        let mut records = Vec::new();
        {
            let mut connection = lock(&self.connection);
            make(&mut connection)?;
            while connection.wants_write() {
                connection.write_tls(&mut records)?;
            }
        }
        (&self.socket).write_all(&records)
    }

    /// Whether plaintext is there already.
    pub(crate) fn has_plaintext(&self) -> bool {
        let state = lock(&self.connection).process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut unread = lock(&self.unread);
        loop {
            {
                let mut connection = lock(&self.connection);
                loop {
                    match connection.reader().read(into) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock && !unread.is_empty() => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        read => return read,
                    }
                    let taken = connection.read_tls(&mut &unread[..])?;
                    unread.drain(..taken);
                    connection.process_new_packets().map_err(io::Error::other)?;
                }
            }
            let mut records = [0; 16 << 10];
            let count = (&self.socket).read(&mut records)?;
            unread.extend_from_slice(&records[..count]);
            if count == 0 {
                lock(&self.connection).read_tls(&mut io::empty())?;
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(16 << 10)];
        self.send(|connection| connection.writer().write_all(piece))?;
        Ok(piece.len())
    }
}
