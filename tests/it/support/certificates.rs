//! A CA of a test's own, and a certificate for this machine that it has signed.

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};

pub struct Certificates {
    /// The CA's certificate, PEM.
    pub authority: String,
    /// `localhost`'s certificate, and its key.
    pub server: Certificate,
    pub key: KeyPair,
}

/// Signed by the algorithm that rcgen prefers.
pub fn certificates() -> Certificates {
    signed_by(&rcgen::PKCS_ECDSA_P256_SHA256)
}

/// Signed by this one.
pub fn signed_by(algorithm: &'static SignatureAlgorithm) -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate_for(algorithm).unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let issuer = Issuer::new(authority, authority_key);
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    Certificates { authority: pem, server, key }
}
