//! Getting an account back when all its devices are lost, by the recovery code (spec 05-accounts, 5.8).

use tidings_proto::chain::{AccountChange, AccountState, Verified};
use tidings_proto::id::DeviceId;
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

use crate::chains;
use crate::client::{Client, candidate, failed, generator};
use crate::error::Error;
use crate::home::Home;
use crate::linking::{Joined, settle, start};
use crate::me::{Me, NewDevice};
use crate::options::Options;
use crate::store::Store;

/// Makes this device one of the account whose recovery code is given, and starts it. Former devices stay on the
/// list until they are removed ([`Client::remove_device`]); what they had read is not on this one.
///
/// # Errors
/// [`Error::Misuse`] for a bad code or a store that is in use, [`Error::Refused`] with `no-such-account` where the
/// code is not that account's, [`Error::Violation`] if the home's answer is forged, [`Error::Offline`].
pub async fn recover(options: Options, address: Address, code: &str) -> Result<Client, Error> {
    let recovery = parse(code)?;
    let store = Store::open(&options.store).await?;
    if Me::load(&store).await?.is_some() {
        return Err(Error::Misuse("the store holds another device".to_owned()));
    }
    let mut rng = generator()?;
    let device = NewDevice::generate(&mut rng);
    let home = candidate(&options, &address, &recovery, &mut rng).await?;
    let joined = append(&home, &address, &recovery, &device).await;
    home.connection.close(0_u32.into(), b"");
    settle(&store, &home, device, &joined?).await?;
    start(options, store, rng).await
}

/// The key behind a code: 64 hexadecimal digits, with spaces or not.
fn parse(code: &str) -> Result<SigningKey, Error> {
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let mut seed = [0; 32];
    hex::decode_to_slice(digits, &mut seed)
        .map_err(|_| Error::Misuse("a recovery code has 64 hexadecimal digits".to_owned()))?;
    Ok(SigningKey::from_seed(&seed))
}

async fn append(
    home: &Home,
    address: &Address,
    recovery: &SigningKey,
    device: &NewDevice,
) -> Result<Joined, Error> {
    let violation = |text: &str| Error::Violation(text.to_owned());
    let chain = chain(home, address).await?;
    let verified = chains::first_contact(None, &chain).map_err(|error| violation(&error.to_string()))?;
    if verified.state().address() != address {
        return Err(violation("the chain names another address"));
    }
    let change = AccountChange::AddDevice(device.keys()?);
    let link = Verified::<AccountState>::link(&verified, &change, &[recovery, &device.key]);
    let longer = verified.extended(&link).map_err(|error| violation(&error.to_string()))?;
    let mut pipeline = home.pipeline().await.map_err(failed)?;
    pipeline.ask::<pb::Done>(&pb::AppendLink { link: Some(link) }).await.map_err(failed)?;
    Ok(Joined {
        address: address.clone(),
        links: chain,
        chain: verified,
        device: DeviceId::from(longer.head()),
    })
}

/// All links of the account's chain.
async fn chain(home: &Home, address: &Address) -> Result<Vec<pb::Link>, Error> {
    let mut pipeline = home.pipeline().await.map_err(failed)?;
    let mut links: Vec<pb::Link> = Vec::new();
    loop {
        let after = links.last().map(|link| {
            tidings_proto::chain::link_id(tidings_proto::sign::Purpose::ACCOUNT_LINK, &link.body).to_bytes()
        });
        let request = pb::Resolve {
            address: address.to_string(),
            after: after.unwrap_or_default(),
            ..pb::Resolve::default()
        };
        let answer: pb::Resolved = pipeline.ask(&request).await.map_err(failed)?;
        let done = !answer.more || answer.links.is_empty();
        links.extend(answer.links);
        if done {
            return Ok(links);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_with_and_without_spaces() {
        let code = "00 ".repeat(32);
        assert_eq!(parse(&code).expect("a code").seed(), [0; 32]);
        assert!(parse("00").is_err());
        assert!(parse(&"zz".repeat(32)).is_err());
    }
}
