//! The platform behind TLS: the site's own CA is enough, and without it nothing is sent.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use benefits_sync::config::Config;
use benefits_sync::delivery::client::Client;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::PLATFORM;
use super::scripted::bytes;
use crate::support::certificates::{Certificates, certificates};

/// Takes TLS connections, and speaks these protocols; with its CA as PEM.
pub(super) fn acceptor(protocols: &[&[u8]]) -> (TlsAcceptor, String) {
    let Certificates { authority, server, key } = certificates();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), authority)
}

/// A TLS server that answers `getPlatform` as often as somebody gets through, and its CA as PEM.
async fn platform() -> (SocketAddr, String) {
    let (acceptor, authority) = acceptor(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust the certificate breaks off here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            stream.write_all(&bytes("200 OK", "application/json", "", PLATFORM)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, authority)
}

/// A token, and the CA.
pub(super) fn directory(authority: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "t").unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority).unwrap();
    directory
}

/// Of a platform whose CA is the directory's.
pub(super) fn client(address: SocketAddr, directory: &Path, delivery: &str) -> Client {
    client_with(address, directory, &format!("ca_file = \"{}/ca.pem\"", directory.display()), delivery)
}

fn client_with(address: SocketAddr, directory: &Path, ca: &str, delivery: &str) -> Client {
    let text = format!(
        "[database]\nurl = \"postgresql://hr@db/hr\"\n[benefits]\nplatform_id = \"acme\"\nemail_source = \"work\"\n\
         base_url = \"https://localhost:{}/api/v1\"\ntoken_file = \"{}/token\"\n{ca}\n[delivery]\n{delivery}\n",
        address.port(),
        directory.display()
    );
    Client::new(&Config::parse(&text, "test.toml", []).unwrap()).unwrap()
}

#[tokio::test]
async fn the_sites_own_ca_is_trusted_and_an_unknown_one_is_not() {
    let (address, authority) = platform().await;
    let directory = directory(&authority);

    let failure = client_with(address, directory.path(), "", "").platform().await.unwrap_err();
    assert!(failure.label() == "unavailable" && !failure.is_ambiguous(), "{failure:?}");
    assert!(
        failure.text.contains("certificate of Benefits") && failure.text.contains("benefits.ca_file"),
        "{failure}"
    );
    assert_eq!(client(address, directory.path(), "").platform().await.unwrap().value.id, "acme");
}
