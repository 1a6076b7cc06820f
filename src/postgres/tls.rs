//! TLS with libpq's `sslmode` meanings, on rustls with the ring provider.
//!
//! | mode | the certificate must |
//! | --- | --- |
//! | `prefer` | be there, if the server offers TLS at all; it is not verified |
//! | `require` | be there; come from the CA when one is named, else it is not verified |
//! | `verify-ca` | come from the CA (or the system's roots) |
//! | `verify-full` | and name the host |
//!
//! [`server_end_point`] gives SCRAM its channel binding: the hash of the server's certificate (RFC 5929), by which a man
//! in the middle with another certificate is found out even when the certificate is not verified.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::error::ConnectError;
use super::target::Target;
use crate::config::TlsMode;

/// The client side of TLS for this target. Files are read here, at every connect, so that they can be replaced.
pub(super) fn client_config(target: &Target) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(target, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("the TLS provider", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &target.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable_file(key, &error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| unusable_file(certificate, &error))
}

/// That the files which are named can be used, also where nothing is verified with them yet.
pub(super) fn look_at_files(target: &Target) -> Result<(), ConnectError> {
    if target.tls != TlsMode::Disable {
        client_config(target)?;
        target.ca_file.as_deref().map(certificates).transpose()?;
    }
    Ok(())
}

fn verifier(
    target: &Target,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    match (target.tls, &target.ca_file) {
        (TlsMode::Disable | TlsMode::Prefer, _) | (TlsMode::Require, None) => {
            Ok(Arc::new(Unnamed { roots: None, provider: Arc::clone(provider) }))
        }
        (TlsMode::Require | TlsMode::VerifyCa, _) => {
            Ok(Arc::new(Unnamed { roots: Some(roots(target)?), provider: Arc::clone(provider) }))
        }
        (TlsMode::VerifyFull, _) => {
            let roots = Arc::new(roots(target)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|error| unusable("the root certificates", &error))?;
            Ok(verifier)
        }
    }
}

/// The named CA alone, or else the system's roots.
fn roots(target: &Target) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &target.ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unusable_file(path, &error))?;
        }
        return Ok(roots);
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(unusable("the system's store", &"it has no certificates"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable_file(path, &error))?;
    if found.is_empty() { Err(unusable_file(path, &"it holds no PEM certificate")) } else { Ok(found) }
}

fn unusable_file(path: &Path, reason: &dyn std::fmt::Display) -> ConnectError {
    unusable(&path.display().to_string(), reason)
}

fn unusable(path: &str, reason: &dyn std::fmt::Display) -> ConnectError {
    ConnectError::Certificates { path: path.to_owned(), reason: reason.to_string() }
}

/// Checks the chain but not the name (`verify-ca`), or neither. That the server holds the certificate's key is always
/// checked: channel binding relies on it.
#[derive(Debug)]
struct Unnamed {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate's hash by its own signature's hash function, MD5 and SHA-1
/// raised to SHA-256. `None` where the signature names no single hash (Ed25519, RSA-PSS): PostgreSQL refuses channel
/// binding with such a certificate, so plain SCRAM is used then.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    match signature_algorithm(certificate)? {
        // PKCS #1 (1.2.840.113549.1.1.x): md5, sha1, sha256, sha384, sha512 with RSA.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05 | 0x0b]
        // ANSI X9.62 (1.2.840.10045.4): ECDSA with sha1, and 4.3.x: with SHA-2.
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => Some(Sha256::digest(certificate).to_vec()),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => Some(Sha384::digest(certificate).to_vec()),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04] => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

const DER_SEQUENCE: u8 = 0x30;
const DER_OBJECT_IDENTIFIER: u8 = 0x06;

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm OID, ... }, ... }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (content, _) = der_element(certificate, DER_SEQUENCE)?;
    let (_, after_tbs) = der_element(content, DER_SEQUENCE)?;
    let (algorithm, _) = der_element(after_tbs, DER_SEQUENCE)?;
    der_element(algorithm, DER_OBJECT_IDENTIFIER).map(|(oid, _)| oid)
}

/// The element's content, and what follows it.
fn der_element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    // Below 128 the byte is the length; else it says how many bytes have it.
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = digits.iter().try_fold(0_usize, |sum, digit| {
            sum.checked_mul(256).and_then(|sum| sum.checked_add(usize::from(*digit)))
        })?;
        (length, rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's skeleton: only what is looked at.
    fn certificate_signed_by(oid: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let mut out = vec![tag, 0x82];
            out.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            out.extend(content);
            out
        };
        let mut content = wrap(DER_SEQUENCE, &[0; 300]);
        content.extend(wrap(DER_SEQUENCE, &wrap(DER_OBJECT_IDENTIFIER, oid)));
        wrap(DER_SEQUENCE, &content)
    }

    #[test]
    fn channel_binding_takes_the_hash_of_the_certificates_own_signature() {
        let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        for (last, length) in [(0x05, 32), (0x0b, 32), (0x0c, 48), (0x0d, 64)] {
            let certificate = certificate_signed_by(&[rsa.as_slice(), &[last]].concat());
            assert_eq!(server_end_point(&certificate).unwrap().len(), length);
        }
    }

    #[test]
    fn ed25519_and_pss_have_no_channel_binding() {
        assert_eq!(server_end_point(&certificate_signed_by(&[0x2b, 0x65, 0x70])), None);
        let pss = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
        assert_eq!(server_end_point(&certificate_signed_by(&pss)), None);
    }

    #[test]
    fn a_cut_certificate_is_no_certificate() {
        let whole = certificate_signed_by(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]);
        assert!(server_end_point(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..end]), None, "cut at {end}");
        }
    }
}
