//! Certificates of public authorities: Mozilla's, as the crate `webpki-root-certs` has them, so that the image does not depend
//! on the machine that builds it. They count where a kubeconfig names no authority of its own; in a pod it is the cluster's.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// All of them, in the form that programs look for.
pub(super) fn pem() -> String {
    let mut text = String::new();
    for certificate in TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = BASE64_STANDARD.encode(certificate);
        while !rest.is_empty() {
            let next = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = next;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_can_be_read_again() {
        let pem = pem();
        assert!(pem.lines().all(|line| line.len() <= 64));
        let of = |text: &str| text.replace("-----END CERTIFICATE-----", "").replace('\n', "");
        let read: Vec<_> = pem
            .split("-----BEGIN CERTIFICATE-----")
            .skip(1)
            .map(|text| BASE64_STANDARD.decode(of(text)).unwrap())
            .collect();
        assert!(read.len() > 100);
        assert!(read.iter().eq(TLS_SERVER_ROOT_CERTS.iter().map(|certificate| certificate.as_ref())));
    }
}
