//! Stateless resets that outlive the process: a client of a server that was killed learns at its next packet that
//! the connection is gone, and need not wait for the idle timeout (RFC 9000, section 10.3).

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::Sha256;

/// Bytes of a connection id.
const ID_BYTES: usize = 8;

/// The key that reset tokens are made with: the same after each start.
pub(super) struct ResetKey(pub(super) [u8; 32]);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length").chain_update(data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mac = self.mac(data).finalize().into_bytes();
        signature_out.iter_mut().zip(mac).for_each(|(out, byte)| *out = byte);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.mac(data).verify_slice(signature).map_err(|_| CryptoError)
    }
}

/// Random connection ids. quinn's own kind tells ids of an earlier start from those of this one, and leaves the
/// former without an answer.
#[derive(Debug)]
pub(super) struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&crate::node::random::<ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
