//! How much of a server's certificate is believed, and the connector that asks for it.
//!
//! `rustls` always checks authority and name. libpq's weaker modes are what
//! many databases are set up for, with certificates that nobody else has signed;
//! [`Lenient`] gives way in what they do not ask for, and in nothing else: that
//! the server holds the certificate's key is proved in all of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a certificate has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing: encryption against those who only listen.
    Anybody,
    /// A trusted authority has signed it.
    Authority,
    /// The same, and it is for this host.
    NameAndAuthority,
}

#[derive(Clone)]
pub(super) struct Tls {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at it"))]
    pub trust: Trust,
    pub connector: MakeRustlsConnect,
}

impl Tls {
    /// Reads what has to be read of files and of the system's roots.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate; says which.
    pub fn new(
        trust: Trust,
        roots: Option<&Path>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let authorities = match trust {
            Trust::Anybody => None,
            Trust::Authority | Trust::NameAndAuthority => {
                let roots = Arc::new(authorities(roots)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                    .build()
                    .map_err(|error| format!("certificates to trust: {error}"))?;
                Some(verifier)
            }
        };
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verifier: Arc<dyn ServerCertVerifier> = match (trust, authorities) {
            (Trust::NameAndAuthority, Some(strict)) => strict,
            (_, authorities) => Arc::new(Lenient {
                authorities,
                provider,
            }),
        };
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(&certificate)?;
                let private = PrivateKeyDer::from_pem_file(&key)
                    .map_err(|error| format!("sslkey {}: {error}", key.display()))?;
                config
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| format!("sslcert {}: {error}", certificate.display()))?
            }
        };
        // Asked for by PostgreSQL 17 where TLS begins at once (sslnegotiation=direct).
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Tls {
            trust,
            connector: MakeRustlsConnect::new(config),
        })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", file.display()))?;
    match all.is_empty() {
        true => Err(format!("{} holds no certificate", file.display())),
        false => Ok(all),
    }
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) if file != Path::new("system") => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("sslrootcert {}: {error}", file.display()))?;
            }
        }
        _ => {
            let found = rustls_native_certs::load_native_certs();
            let (taken, _) = roots.add_parsable_certificates(found.certs);
            if taken == 0 {
                return Err("this system has no certificates to trust; name a file with sslrootcert".into());
            }
        }
    }
    Ok(roots)
}

/// Checks less than `rustls` would: the authority only, or not even that.
#[derive(Debug)]
struct Lenient {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is what webpki looks at last: an error of it says that the rest is sound.
        match authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
