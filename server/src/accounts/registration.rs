//! Making an account; invitations.

use tidings_proto::pb;
use tidings_proto::sign::{PublicKey, sha256};

use super::rules;
use crate::config::Registration;
use crate::keys;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::Need;

/// The longest token.
const TOKEN_BYTES_MAX: usize = 128;

impl Shared {
    /// Makes an account from its genesis, with the first device's keys.
    ///
    /// # Errors
    /// In the order of the card: `message-malformed`, `limit-exceeded`, `registration-closed`, `link-invalid`,
    /// `name-invalid`, `token-invalid`, `name-taken`.
    pub async fn register(&self, key: &PublicKey, request: pb::Register) -> Result<(), Refusal> {
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let link = request.genesis.ok_or_else(|| malformed("no genesis"))?;
        let mut given = request.keys.ok_or_else(|| malformed("no keys"))?;
        given.replace = false;
        if given.signed_prekey.is_none() || given.kyber_last_resort.is_none() {
            return Err(malformed("a new account has a signed and a last-resort prekey"));
        }
        if request.token.len() > TOKEN_BYTES_MAX {
            return Err(Code::LIMIT_EXCEEDED.because("token"));
        }
        rules::keys(&given, (0, 0), self.config.limits.one_time_prekeys_max())?;
        let genesis = rules::genesis(&link, key);
        let known = match &genesis {
            Ok(chain) => {
                let account = chain.account_id();
                self.state.view(&[Need::Account(account)], |world| world.local(&account).is_some()).await?
            }
            Err(_) => false,
        };
        // The same genesis again is a lost answer, not a second account.
        if known {
            return self.state.all_so_far().durable().await;
        }
        if self.config.registration == Registration::Closed {
            return Err(Code::REGISTRATION_CLOSED.into());
        }
        let chain = genesis?;
        let state = chain.state();
        let (device, device_keys) = state.devices().iter().next().ok_or(Code::LINK_INVALID)?;
        keys::check_signatures(&given, device_keys.identity_key())?;
        if state.address().domain() != &self.config.domain {
            return Err(Code::NAME_INVALID.because("an address of another domain"));
        }
        let (account, device, address) = (chain.account_id(), *device, state.address().to_string());
        let token = sha256(request.token.as_bytes());
        let needs = [Need::Account(account), Need::Name(address.clone()), Need::Token(token)];
        let commit = {
            let mut transaction = self.state.begin(&needs).await?;
            if transaction.world().account(&account).is_some_and(|held| !held.local) {
                return Err(Code::LINK_INVALID.because("its chain goes on at another domain"));
            }
            if transaction.world().local(&account).is_none() {
                let needs_token = self.config.registration == Registration::Token;
                if needs_token && !transaction.world().token_valid(&token) {
                    return Err(Code::TOKEN_INVALID.into());
                }
                if transaction.world().named(&address).is_some() {
                    return Err(Code::NAME_TAKEN.into());
                }
                if needs_token {
                    transaction.put_token(token, false);
                }
                transaction.append_link(chain, link, true, self.now_ms());
                transaction.give_name(address, account);
                transaction.add_device(device, account, self.incarnation());
                keys::publish(&mut transaction, device, given);
            }
            transaction.commit().0
        };
        commit.durable().await
    }

    /// Makes an invitation that is good for one registration.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn invite(&self) -> Result<String, Refusal> {
        let token = hex::encode(self.random::<16>());
        let commit = {
            let mut transaction = self.state.begin(&[]).await?;
            transaction.put_token(sha256(token.as_bytes()), true);
            transaction.commit().0
        };
        commit.durable().await?;
        Ok(token)
    }
}
