//! How two people make sure that nobody is between them (spec 08-encryption, 8.6).

use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::AccountId;

use crate::chains;
use crate::client::Client;
use crate::crypto::{HeadPair, QrError, SafetyQr, safety_number};
use crate::error::{Error, StoreError};
use crate::store::accounts::{self, Flag};

impl Client {
    /// The 60 digits both people compare. They compare the two accounts, not their devices, and survive a new
    /// device: an app says so beside them (ENC-040).
    #[must_use]
    pub fn safety_number(&self, other: AccountId) -> String {
        safety_number(self.account(), other)
    }

    /// The safety number's form for a QR code: it compares the chains' heads too.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the account is not known.
    pub async fn safety_qr(&self, other: AccountId) -> Result<SafetyQr, Error> {
        let (own, chain) = (self.verified(self.account()).await?, self.verified(other).await?);
        Ok(SafetyQr::new((self.account(), own.head()), (other, chain.head())))
    }

    /// Whether a code scanned from the other person's device fits: it is for the same two accounts, and of the two
    /// views of each account one extends the other. Links that this device lacks are asked for first (ENC-041,
    /// ENC-042).
    ///
    /// # Errors
    /// [`Error::Misuse`] if the bytes are no such code or the account is not known; [`Error::Offline`] and
    /// [`Error::Refused`] if links are missing and cannot be had.
    pub async fn check_safety_qr(&self, other: AccountId, scanned: &[u8]) -> Result<bool, Error> {
        let scanned = SafetyQr::from_bytes(scanned).map_err(|error| Error::Misuse(error.to_string()))?;
        let pairs = match self.safety_qr(other).await?.compare(&scanned) {
            Ok(pairs) => pairs,
            Err(QrError::OtherAccounts) => return Ok(false),
            Err(error) => return Err(Error::Misuse(error.to_string())),
        };
        for HeadPair { account, scanned, .. } in pairs {
            if self.verified(account).await?.contains(&scanned) {
                continue;
            }
            self.refresh(account).await?;
            if !self.verified(account).await?.contains(&scanned) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes that the two people have compared the safety number, or takes that back.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn set_verified(&self, account: AccountId, verified: bool) -> Result<(), Error> {
        let mut tx = self.store().begin().await?;
        accounts::set_flag(&mut tx, account, Flag::Verified, verified).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    async fn verified(&self, account: AccountId) -> Result<Verified<AccountState>, Error> {
        let links = self.store().links(account).await?;
        let unknown = |_| Error::Misuse("the account is not known: resolve it first".to_owned());
        chains::first_contact(Some(account), &links).map_err(unknown)
    }
}
