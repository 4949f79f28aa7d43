//! Signatures of deployments, with NKeys: the Ed25519 keys that users of NATS have.
//!
//! Signed is what decides on what runs: the handler's name, the component's digest
//! and the manifest's text. Not signed is whether it is paused: that is a matter of
//! operating it, and of NATS permissions.

use anyhow::{Context as _, bail};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Who vouches for a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Public NKey.
    pub key: String,
    /// Hexadecimal.
    pub signature: String,
}

/// What is signed. Each part is preceded by its length, so that no two
/// deployments read alike.
fn message(name: &str, digest: &str, manifest: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"weir deployment 1");
    for part in [name, digest, manifest] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// Signs a deployment with an NKey seed (`SU…`, `SA…`, `SO…`).
///
/// # Errors
/// It is no seed.
pub fn sign(seed: &str, name: &str, digest: &str, manifest: &str) -> anyhow::Result<Signature> {
    let pair = KeyPair::from_seed(seed.trim())
        .context("not an NKey seed; `nk -gen user` or `nsc generate nkey` make one")?;
    let signature = pair
        .sign(&message(name, digest, manifest))
        .context("the seed does not sign")?;
    Ok(Signature {
        key: pair.public_key(),
        signature: signature.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Whether `trusted` public keys vouch for a deployment; all do if there are none.
///
/// # Errors
/// Who did, or that nobody did.
pub fn check(
    trusted: &[String],
    signature: Option<&Signature>,
    name: &str,
    digest: &str,
    manifest: &str,
) -> anyhow::Result<()> {
    if trusted.is_empty() {
        return Ok(());
    }
    let Some(signature) = signature else {
        bail!(
            "it is not signed, and this host runs only what one of its trusted keys has signed (`weir deploy --sign`)"
        );
    };
    if !trusted.contains(&signature.key) {
        bail!(
            "it is signed by {}, which is not among the trusted keys of this host",
            signature.key
        );
    }
    let bytes = unhex(&signature.signature).context("its signature is not hexadecimal")?;
    KeyPair::from_public_key(&signature.key)
        .and_then(|key| key.verify(&message(name, digest, manifest), &bytes))
        .map_err(|error| anyhow::anyhow!("its signature by {} is wrong: {error}", signature.key))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_key_signed_is_taken() {
        let (ours, other) = (KeyPair::new_user(), KeyPair::new_user());
        let trusted = [ours.public_key()];
        let seed = ours.seed().expect("a seed");
        let signature = sign(&seed, "h", "d", "m").expect("signs");
        let check = |signature: Option<&Signature>, manifest: &str| {
            check(&trusted, signature, "h", "d", manifest).map_err(|error| error.to_string())
        };
        assert_eq!(check(Some(&signature), "m"), Ok(()));
        assert!(
            check(Some(&signature), "M")
                .expect_err("changed")
                .contains("wrong")
        );
        assert!(check(None, "m").expect_err("unsigned").contains("not signed"));
        let foreign = sign(&other.seed().expect("a seed"), "h", "d", "m").expect("signs");
        assert!(
            check(Some(&foreign), "m")
                .expect_err("a stranger")
                .contains("not among")
        );
        let forged = Signature {
            key: ours.public_key(),
            ..foreign
        };
        assert!(check(Some(&forged), "m").expect_err("forged").contains("wrong"));
        assert!(super::check(&[], None, "h", "d", "m").is_ok());
        assert!(sign("nonsense", "h", "d", "m").is_err());
    }
}
