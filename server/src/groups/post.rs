//! Posts: submissions whose conversation is a group (chapter 06, 6.2; chapter 07).
//!
//! The outcome and the post are one decision: a resubmission finds the outcome, whatever became of the post.

use std::sync::Arc;

use bytes::Bytes;
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::pb;

use super::chains::{Known, Named};
use super::group_id;
use super::held::Held;
use super::replica::effect::Effect;
use crate::messages::{Submission, rules};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, World};

/// A post's form, checked without looking at the group.
struct Form {
    ciphertext: Bytes,
    lifetime_ms: u64,
}

impl Shared {
    /// Decides a post; gives the encoded `Outcome`.
    ///
    /// # Errors
    /// A refusal that consumes nothing: about the counter, or to be tried later.
    pub(crate) async fn submit_post(self: &Arc<Self>, submission: Submission) -> Result<Bytes, Refusal> {
        let form = self.post_form(&submission.request);
        let id = group_id(&submission.request.group).unwrap_or_default();
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let mut held = self.held(id, &mut place).await?;
        let known = match &held {
            Some(held) => self.known_to(&held.replica, &Named::default()).await?,
            None => Known::default(),
        };
        let needs = [Need::Account(submission.account)];
        let decided = {
            let mut transaction = self.state.begin(&needs).await?;
            let turn = self.turn(transaction.world(), &submission);
            match turn {
                Ok(Ok(rules::Turn::Known(outcome))) => Ok((outcome, transaction.commit().0, Vec::new())),
                Ok(Ok(rules::Turn::New)) => {
                    let result = form.and_then(|form| {
                        let held = held.as_deref_mut().ok_or(Code::NO_SUCH_GROUP)?;
                        self.post(transaction.world(), (id, held, &known), &submission, form)
                    });
                    match self.record(&mut transaction, &submission, result) {
                        Ok(outcome) => {
                            let effects = match held.as_deref_mut() {
                                Some(held) => self.conclude_in(id, held, &mut transaction),
                                None => Vec::<Effect>::new(),
                            };
                            Ok((outcome, transaction.commit().0, effects))
                        }
                        Err(refusal) => Err(Err(refusal)),
                    }
                }
                Ok(Err(last)) => Err(Ok(last)),
                Err(refusal) => Err(Err(refusal)),
            }
        };
        let decided = decided.map(|(outcome, commit, effects)| {
            if let Some(held) = held.as_deref_mut() {
                held.shrink(commit.so_far());
                self.leave(id, held, &commit, effects);
            }
            (outcome, commit)
        });
        let there = held.is_some();
        *place = held;
        drop(place);
        drop(slot);
        if !there {
            self.groups.forget(id);
        }
        match decided {
            Ok((outcome, commit)) => {
                commit.durable().await?;
                Ok(outcome)
            }
            Err(Ok(last)) => self.outcome_again(&submission, last).await,
            Err(Err(refusal)) => Err(refusal),
        }
    }

    /// Whether a submission is new; the last counter where only the store knows its outcome.
    fn turn(&self, world: &World, submission: &Submission) -> Result<Result<rules::Turn, u64>, Refusal> {
        let device = world.device(&submission.device).ok_or(Code::AUTH_REMOVED)?;
        let (last, counter) = (device.row.counter, submission.request.counter);
        let stored = device.outcomes.get(&counter).cloned();
        if counter > 0 && counter <= last && stored.is_none() {
            return Ok(Err(last));
        }
        rules::turn(last, counter, &submission.digest, stored, submission.behind).map(Ok)
    }

    fn post_form(&self, request: &pb::Submit) -> Result<Form, Refusal> {
        let (limits, malformed) = (&self.config.limits, |what: &str| Code::MESSAGE_MALFORMED.because(what));
        group_id(&request.group)?;
        if rules::class(request)? != pb::Class::Content {
            return Err(malformed("class"));
        }
        let direct = !request.to_account.is_empty()
            || !request.to_address.is_empty()
            || !request.own_payloads.is_empty()
            || request.supplements > 0;
        if direct {
            return Err(malformed("a post to a group names no account"));
        }
        if request.to_head.len() != 32 || request.commitment.len() != 32 {
            return Err(malformed("a head or the commitment"));
        }
        if request.group_number == 0 {
            return Err(malformed("group_number"));
        }
        let [payload] = request.payloads.as_slice() else { return Err(malformed("one payload")) };
        if !payload.device.is_empty() || payload.kind() != pb::PayloadKind::SenderKey {
            return Err(malformed("a post's payload"));
        }
        rules::sizes(&request.payloads, limits.ciphertext_bytes_max())?;
        let lifetime_ms = rules::lifetime_ms(
            request.lifetime_secs,
            limits.lifetime_default_secs(),
            limits.lifetime_max_secs(),
        )?;
        Ok(Form { ciphertext: payload.ciphertext.clone(), lifetime_ms })
    }

    fn post(
        &self,
        world: &World,
        (id, held, known): (GroupId, &mut Held, &Known),
        submission: &Submission,
        form: Form,
    ) -> Result<pb::Accepted, Refusal> {
        let request = &submission.request;
        let account = world.local(&submission.account).ok_or(Code::AUTH_REMOVED)?;
        let now_ms = self.now_ms();
        let expires_at_ms = now_ms.saturating_add(form.lifetime_ms);
        // The conversation stands where a recipient does: both are ids of a chain.
        let conversation = AccountId(id.0);
        let tag = self.franking.tag(
            &request.commitment,
            &submission.device,
            &conversation,
            request.group_number,
            now_ms,
        );
        let post = pb::GroupPost {
            sender: submission.account.to_bytes(),
            sender_address: account.chain.state().address().to_string(),
            sender_device: submission.device.to_bytes(),
            number: request.group_number,
            chain_head: request.to_head.clone(),
            chain_number: request.to_head_number,
            ciphertext: form.ciphertext,
            commitment: request.commitment.clone(),
            franking_tag: tag,
            accepted_at_ms: now_ms,
            expires_at_ms,
        };
        let before = held.last();
        {
            let context = self.groups.own.context(now_ms, known);
            held.replica.post(&context, post)?;
        }
        let position = held.replica.position();
        let placed = position.seq > before;
        Ok(pb::Accepted {
            number: request.group_number,
            accepted_at_ms: now_ms,
            expires_at_ms,
            local: placed,
            place: placed.then_some(pb::GroupPlace { term: position.term, seq: position.seq }),
            ..Default::default()
        })
    }
}
