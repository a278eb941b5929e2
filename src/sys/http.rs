//! HTTPS to a server that is known by the fingerprint of its certificate, as Proxmox's own tools know each
//! other: no authority, no name, no proxy, no redirect. Every request is bounded in time and size.
//! Not here: what is asked, and what the answer means.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use sha2::{Digest, Sha256};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};

/// SHA-256 of a certificate (DER), shown as Proxmox shows it: upper-case hex pairs with colons.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the first certificate in a PEM file, which is the server's own.
    pub fn of_pem(pem: &[u8]) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok().context("there is no certificate in it")?;
        Ok(Self::of_der(&der))
    }

    fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a SHA-256 fingerprint is 32 pairs of hex digits with colons".to_owned();
        let mut bytes = [0; 32];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair =
                pairs.next().filter(|pair| pair.len() == 2 && !pair.contains('+')).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// More than ask at once, so that none has to connect again.
const IDLE_MAX: usize = 8;

/// Keeps connections open between requests; may be used by several threads.
pub struct Client(ureq::Agent);

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Client {
    /// Speaks only with a server that shows one of these certificates.
    pub fn pinned(pins: Vec<Fingerprint>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Pins { pins, provider: Arc::clone(&provider) });
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS")?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // A session that is resumed would not show its certificate again.
        tls.resumption = rustls::client::Resumption::disabled();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .https_only(true)
            .max_idle_connections_per_host(IDLE_MAX)
            .user_agent(concat!("pbx-config/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector = TcpConnector::default().chain(Tls(Arc::new(tls)));
        Ok(Self(ureq::Agent::with_parts(config, connector, DefaultResolver::default())))
    }

    /// `limit` is for all of it, from the name's look-up to the last byte; a body over `max_bytes` is an error.
    /// Errors tell the cause, never the header.
    pub fn get(&self, url: &str, authorization: &str, limit: Duration, max_bytes: u64) -> Result<Answer> {
        let request = self.0.get(url).header("Authorization", authorization);
        let mut response = request.config().timeout_global(Some(limit)).build().call().map_err(plain)?;
        let body = response.body_mut().with_config().limit(max_bytes).read_to_vec().map_err(plain)?;
        Ok(Answer { status: response.status().as_u16(), body })
    }
}

/// The cause, without the library's wrapping.
fn plain(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Io(error) => anyhow::Error::new(error),
        ureq::Error::Timeout(_) => anyhow::anyhow!("no answer in time"),
        ureq::Error::Other(error) => match error.downcast::<rustls::Error>().map(|error| *error) {
            Ok(rustls::Error::General(text)) => anyhow::anyhow!("{text}"),
            Ok(error) => anyhow::anyhow!("TLS: {error}"),
            Err(error) => anyhow::anyhow!("{error}"),
        },
        other => anyhow::anyhow!("{other}"),
    }
}

/// Knows a server by its certificate alone; that it holds the key is proven by the handshake's signature.
#[derive(Debug)]
struct Pins {
    pins: Vec<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of_der(end_entity);
        if self.pins.contains(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("it shows another certificate, with the fingerprint {shown}")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS with a configuration of our own, which ureq's connector does not take.
struct Tls(Arc<ClientConfig>);

// Else ureq, which wants connectors to be printable, would print the configuration.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = TlsTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<TlsTransport>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(other)?;
        let mut conn = ClientConnection::new(Arc::clone(&self.0), name).map_err(other)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock).map_err(handshake_error)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(TlsTransport { buffers, stream: StreamOwned { conn, sock } }))
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// rustls hides its own errors in those of the input.
fn handshake_error(error: std::io::Error) -> ureq::Error {
    match error.downcast::<rustls::Error>() {
        Ok(error) => other(error),
        Err(error) => error.into(),
    }
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        use std::io::Write;
        self.stream.sock.set_timeout(timeout);
        let Some(output) = self.buffers.output().get(..amount) else { return Ok(()) };
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        use std::io::Read;
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_shows() {
        let shown = Fingerprint::of_der(b"certificate").to_string();
        assert_eq!(shown.len(), 95);
        assert_eq!(shown.parse::<Fingerprint>().unwrap().to_string(), shown);
        assert_eq!(shown.to_lowercase().parse::<Fingerprint>().unwrap().to_string(), shown);
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let good = Fingerprint::of_der(b"certificate").to_string();
        for text in ["", "AA:BB", &format!("{good}:00"), &good.replace(':', ""), &format!("+A{}", &good[2..])]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
