//! HTTP to a server that is known by the fingerprint of its certificate, as Proxmox's own tools know each other,
//! or by an authority: the host's own roots or a file; or by nothing, when it only has to be there. No proxy, no
//! redirect followed, every request bounded in time and size. Not here: what is asked, and what the answer means.

use std::fmt;
use std::io::Read;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned, WantsVerifier,
};
use sha2::{Digest, Sha256};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};

/// Looks a name up in a thread of its own, which ends no later than the process. ureq's own look-up would panic when
/// there is no thread for it.
#[derive(Debug)]
struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let never =
            NextTimeout { after: ureq::unversioned::transport::time::Duration::NotHappening, ..timeout };
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let (uri, config) = (uri.clone(), config.clone());
        std::thread::Builder::new()
            .spawn(move || drop(done.send(DefaultResolver::default().resolve(&uri, &config, never))))?;
        wait.recv_timeout(*timeout.after).map_err(|_| ureq::Error::Timeout(timeout.reason))?
    }
}

/// SHA-256 of a certificate (DER), shown as Proxmox shows it: upper-case hex pairs with colons.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct CertFingerprint([u8; 32]);

impl CertFingerprint {
    /// Computes the fingerprint of the first certificate in a PEM file, which is the server's own.
    pub fn of_pem(pem: &[u8]) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok().context("contains no certificate")?;
        Ok(Self::of_der(&der))
    }

    /// Computes the fingerprint of a certificate as TLS shows it.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl FromStr for CertFingerprint {
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

impl TryFrom<String> for CertFingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for CertFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for CertFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// More than ask at once, so that none has to connect again.
const IDLE_MAX: usize = 8;

/// The server of an address.
#[derive(Debug, Clone)]
pub struct Site {
    /// `https://host:port`: all of an address that may be told.
    pub name: String,
    pub https: bool,
    /// This very machine.
    pub loopback: bool,
    /// There is a `user@` or `user:secret@` in it.
    pub has_user: bool,
}

impl Site {
    /// None: neither https nor http, or no host.
    pub fn of(url: &str) -> Option<Self> {
        let uri: ureq::http::Uri = url.parse().ok()?;
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, host) = (uri.authority()?.as_str(), uri.host().filter(|host| !host.is_empty())?);
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(u, p)| (Some(u), p));
        let bare = host.trim_matches(['[', ']']);
        let loopback =
            bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let name = format!("{}://{place}", if https { "https" } else { "http" });
        Some(Self { name, https, loopback, has_user: user.is_some() })
    }
}

/// The proof by which a server is known.
#[derive(Debug, Clone)]
pub enum Trust {
    /// One of these certificates, whatever name it has.
    Pins(Vec<CertFingerprint>),
    /// The authorities that the administrator of this machine trusts.
    Roots,
    /// The authorities in a PEM file, and no others.
    Authority(Vec<u8>),
}

/// Keeps connections open between requests; may be used by several threads.
pub struct Client(ureq::Agent);

#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub body: Vec<u8>,
    /// Seconds of a `Retry-After`.
    pub retry_after: Option<u64>,
    /// The `Location` of a redirect, as the server wrote it; it may repeat what is secret.
    pub location: Option<String>,
}

/// What is asked. Headers may be secret; they are in no error.
pub struct HttpRequest<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: &'a [(String, String)],
    /// None: the request has no body at all.
    pub body: Option<&'a [u8]>,
    /// Time limit of all of it, from the name's look-up to the last byte.
    pub limit: Duration,
    /// Size limit of the answer's body; what comes beyond is not read.
    pub max_bytes: u64,
}

/// No answer. `passing`: what may be otherwise in a moment, as a refused connection or a time-out.
#[derive(Debug)]
pub struct Trouble {
    pub passing: bool,
    pub error: anyhow::Error,
}

impl Client {
    /// Speaks only with a server that shows one of these certificates.
    pub fn pinned(pins: Vec<CertFingerprint>) -> Result<Self> {
        Self::new(&Trust::Pins(pins), false)
    }

    /// Speaks TLS with whoever answers. Proves that something is reached, not what: nothing secret may be told to it.
    pub fn of_anyone() -> Result<Self> {
        Ok(Self::with(by_itself(None)?, false))
    }

    /// `plain`: also without TLS. Errors: a file without a certificate, a machine without roots.
    pub fn new(trust: &Trust, plain: bool) -> Result<Self> {
        Ok(Self::with(tls(trust)?, plain))
    }

    fn with(tls: ClientConfig, plain: bool) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .https_only(!plain)
            .allow_non_standard_methods(false)
            .max_idle_connections_per_host(IDLE_MAX)
            .user_agent(concat!("pbx-config/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector = TcpConnector::default().chain(Tls(Arc::new(tls)));
        Self(ureq::Agent::with_parts(config, connector, Lookup))
    }

    /// `limit` is for all of it, from the name's look-up to the last byte; a body over `max_bytes` is an error.
    /// Errors tell the cause, never the header.
    pub fn get(
        &self,
        url: &str,
        authorization: &str,
        limit: Duration,
        max_bytes: u64,
    ) -> Result<HttpResponse> {
        let request = self.0.get(url).header("Authorization", authorization);
        let mut response = request.config().timeout_global(Some(limit)).build().call().map_err(plain)?;
        let body = response.body_mut().with_config().limit(max_bytes).read_to_vec().map_err(plain)?;
        Ok(HttpResponse { status: response.status().as_u16(), body, retry_after: None, location: None })
    }

    /// Errors tell the cause, never the address or a header: they may be secret.
    pub fn send(&self, request: &HttpRequest) -> Result<HttpResponse, Trouble> {
        let mut head = ureq::http::Request::builder().method(request.method).uri(request.url);
        for (name, value) in request.headers {
            head = head.header(name, value);
        }

        // A wrong header or address is named by its kind, not by its value.
        let wrong =
            |_| Trouble { passing: false, error: anyhow::anyhow!("the address or a header is not valid") };
        let response = match request.body {
            Some(body) => self.run(head.body(body).map_err(wrong)?, request.limit)?,
            None => self.run(head.body(()).map_err(wrong)?, request.limit)?,
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("Retry-After").and_then(|text| text.trim().parse().ok());
        let location = header("Location").map(str::to_owned);
        let mut body = Vec::new();

        // The status has told; what of its explanation does not come is not missed.
        let _ = response.into_body().into_reader().take(request.max_bytes).read_to_end(&mut body);
        Ok(HttpResponse { status, body, retry_after, location })
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        request: ureq::http::Request<B>,
        limit: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, Trouble> {
        let request = self.0.configure_request(request).timeout_global(Some(limit)).build();
        self.0.run(request).map_err(|error| Trouble { passing: is_passing(&error), error: plain(error) })
    }
}

fn is_passing(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// The cause, without the library's wrapping.
fn plain(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Io(error) => anyhow::Error::new(error),
        ureq::Error::Timeout(_) => anyhow::anyhow!("no answer in time"),
        ureq::Error::HostNotFound => anyhow::anyhow!("no such host"),
        ureq::Error::Other(error) => match error.downcast::<rustls::Error>().map(|error| *error) {
            Ok(rustls::Error::General(text)) => anyhow::anyhow!("{text}"),
            Ok(rustls::Error::InvalidCertificate(why)) => {
                anyhow::anyhow!("its certificate is not trusted here: {why}")
            }
            Ok(error) => anyhow::anyhow!("TLS: {error}"),
            Err(error) => anyhow::anyhow!("{error}"),
        },
        other => anyhow::anyhow!("{other}"),
    }
}

fn tls(trust: &Trust) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Pins(pins) => return by_itself(Some(pins.clone())),
        Trust::Roots => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            anyhow::ensure!(!roots.is_empty(), "this host has no trusted CAs (install ca-certificates)");
        }
        Trust::Authority(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.context("not PEM")?).context("not a CA certificate")?;
            }
            anyhow::ensure!(!roots.is_empty(), "contains no certificate");
        }
    }
    Ok(builder(provider())?.with_root_certificates(roots).with_no_client_auth())
}

/// A certificate is looked at by itself, whoever signed it. None: any will do.
fn by_itself(pins: Option<Vec<CertFingerprint>>) -> Result<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(ByItself { pins, provider: Arc::clone(&provider) });
    let dangerous = builder(provider)?.dangerous();
    let mut tls = dangerous.with_custom_certificate_verifier(verifier).with_no_client_auth();
    // A session that is resumed would not show its certificate again.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder(provider: Arc<CryptoProvider>) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().context("TLS")
}

/// Knows a server by its certificate alone; that it holds the key is proven by the handshake's signature.
#[derive(Debug)]
struct ByItself {
    pins: Option<Vec<CertFingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByItself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = CertFingerprint::of_der(end_entity);
        if self.pins.as_ref().is_none_or(|pins| pins.contains(&shown)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("it has another certificate, with the fingerprint {shown}")))
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
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(other)?;
        let mut conn = ClientConnection::new(Arc::clone(&self.0), name).map_err(other)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock).map_err(handshake_error)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned { conn, sock } })))
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
        let shown = CertFingerprint::of_der(b"certificate").to_string();
        assert_eq!(shown.len(), 95);
        assert_eq!(shown.parse::<CertFingerprint>().unwrap().to_string(), shown);
        assert_eq!(shown.to_lowercase().parse::<CertFingerprint>().unwrap().to_string(), shown);
    }

    #[test]
    fn of_an_address_only_its_server_is_told() {
        let site = Site::of("https://hooks.example.org:8443/T0/s3cret?key=s3cret").unwrap();
        assert_eq!(
            (site.name.as_str(), site.https, site.has_user),
            ("https://hooks.example.org:8443", true, false)
        );
        let site = Site::of("http://bob:s3cret@[::1]:80/").unwrap();
        assert_eq!((site.name.as_str(), site.loopback, site.has_user), ("http://[::1]:80", true, true));
        for text in ["", "example.org", "ftp://example.org", "https://", "https:///x", "file:///etc/passwd"] {
            assert!(Site::of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        let good = CertFingerprint::of_der(b"certificate").to_string();
        for text in ["", "AA:BB", &format!("{good}:00"), &good.replace(':', ""), &format!("+A{}", &good[2..])]
        {
            assert!(text.parse::<CertFingerprint>().is_err(), "{text}");
        }
    }
}
