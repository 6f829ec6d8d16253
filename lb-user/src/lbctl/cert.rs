//! `lbctl cert`: certificates to begin with (R53).

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::ServerName;

use super::{client::Failure, output::print, units};

/// What about certificates.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// Make a certificate that is signed by itself, with its key in the same file.
    ///
    /// An ECDSA key (P-256), and names for clients to compare. Clients have to be told to trust it.
    Selfsign(Selfsign),
}

/// A certificate that is wanted.
#[derive(Clone, Debug, Args)]
pub struct Selfsign {
    /// The name that clients go by, e.g. lb.example; *.lb.example is for all names below. May be repeated: the first is
    /// the certificate's common name, all are its alternative names. An address is possible too.
    #[arg(long, value_name = "NAME", required = true, value_parser = name)]
    fqdn: Vec<String>,

    /// How long it is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,

    /// The file to write, which must not exist; `-` for standard output. [default: NAME.pem]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A name that a certificate can be for.
fn name(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    match ServerName::try_from(bare) {
        Ok(ServerName::IpAddress(_)) if bare == text => Ok(text.to_owned()),
        Ok(ServerName::DnsName(_)) => Ok(text.to_owned()),
        _ => Err("it must be a name such as lb.example, or an address".into()),
    }
}

/// Makes it.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn run(word: &Word) -> Result<(), Failure> {
    let Word::Selfsign(wanted) = word;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (pem, until) = selfsigned(&wanted.fqdn, wanted.days, now)
        .map_err(|error| Failure::Answer(format!("cannot make a certificate: {error}")))?;
    let file = match &wanted.out {
        Some(file) if file.as_os_str() == "-" => return print(&pem),
        Some(file) => file.clone(),
        // No file is called *.
        None => PathBuf::from(format!("{}.pem", wanted.fqdn[0].replacen('*', "_", 1))),
    };
    write_new(&file, pem.as_bytes())?;
    let names = wanted.fqdn.join(", ");
    print(&format!("{}: certificate and key for {names}, valid until {until}\n", file.display()))
}

/// Certificate and key, and when the certificate ends: `days` after today, which is the day of `now` (seconds since 1970).
fn selfsigned(names: &[String], days: u64, now: u64) -> Result<(String, String), rcgen::Error> {
    const DAY: u64 = 86_400;
    let today = now / DAY;
    let midnight = |day: u64| {
        let (year, month, day) = units::date(day);
        date_time_ymd(year.try_into().unwrap_or(9999), month as u8, day as u8)
    };
    let mut parameters = CertificateParams::new(names)?;
    // Clocks of clients may be behind.
    parameters.not_before = midnight(today.saturating_sub(1));
    let end = today + days + 1;
    parameters.not_after = midnight(end);
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, names[0].clone());
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem() + &key.serialize_pem(), units::utc(end * DAY)))
}

/// Writes a file that nobody else may read, unless there is one.
///
/// # Errors
/// When there is one, or it cannot be written.
pub(super) fn write_new(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Answer(format!("{} is there already and is not overwritten", file.display()))
        }
        _ => Failure::Answer(format!("cannot write {}: {error}", file.display())),
    };
    let mut opened =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(cannot)?;
    opened.write_all(bytes).and_then(|()| opened.sync_all()).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    };

    use super::*;

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    /// Whether a client that trusts the certificate, and goes by a name, is content with it.
    fn accepts(pem: &str, name: &str) -> Result<(), String> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate], key).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    #[test]
    fn clients_that_trust_it_accept_it_for_its_names() {
        let names = ["lb.example", "*.apps.lb.example", "10.0.0.1"].map(str::to_owned);
        let (pem, _) = selfsigned(&names, 3_650, now()).unwrap();
        for name in ["lb.example", "one.apps.lb.example", "10.0.0.1"] {
            accepts(&pem, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(accepts(&pem, "other.example").is_err());
        let (old, _) = selfsigned(&names, 1, now() - 10 * 86_400).unwrap();
        assert!(accepts(&old, "lb.example").unwrap_err().contains("expired"));
        assert_eq!(selfsigned(&names, 365, 1_795_219_831).unwrap().1, "2027-11-22T00:00:00Z");
    }

    #[test]
    fn nobody_else_may_read_it_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lb.pem");
        let wanted = Selfsign { fqdn: vec!["lb.example".into()], days: 7, out: Some(file.clone()) };
        run(&Word::Selfsign(wanted.clone())).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----") && text.contains("PRIVATE KEY"));
        let refused = run(&Word::Selfsign(wanted)).unwrap_err().to_string();
        assert!(refused.ends_with("is there already and is not overwritten"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn names() {
        for good in ["lb.example", "*.lb.example", "lb", "10.0.0.1", "2001:db8::1"] {
            assert_eq!(name(good), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "*", "*.", "a/b", "*.10.0.0.1", "lb..example", "ä.example"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
