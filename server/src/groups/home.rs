//! Requests of other homes about groups.

use std::sync::Arc;

use prost::Message as _;
use tidings_proto::codec::{Frame, to_raw};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::GroupId;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::chains::Named;
use super::device::is_home_of;
use super::{account_id, group_id};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};

impl Shared {
    /// Answers a home; what the answer says is durable.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub async fn answer_home(self: &Arc<Self>, asking: &Domain, request: Frame) -> Result<RawFrame, Refusal> {
        match request {
            Frame::GroupBatch(batch) => self.take_batch(asking, batch).await.map(|taken| to_raw(&taken)),
            Frame::GroupOffer(offer) => {
                let id = group_id(&offer.group)?;
                let nothing = Named::default();
                let offered =
                    self.in_group(id, &nothing, |replica, context, _| replica.offer(context, asking, &offer));
                offered.await?.durable().await?.map(|placed| to_raw(&placed))
            }
            Frame::GroupAppend(request) => {
                let id = group_id(&request.group)?;
                check_domain(&request, asking)?;
                self.append_from(id, request, None).await.map(|appended| to_raw(&appended))
            }
            Frame::GroupFetch(request) => {
                let id = group_id(&request.group)?;
                self.page_of(id, asking, &request).await.map(|page| to_raw(&page))
            }
            Frame::GroupMarks(marks) => {
                let id = group_id(&marks.group)?;
                let nothing = Named::default();
                let noted = self.in_group(id, &nothing, |replica, context, _| {
                    replica.marks(context, asking, &marks);
                });
                noted.await?.durable().await.map(|()| to_raw(&pb::Done {}))
            }
            Frame::GroupMarksFetch(request) => {
                let id = group_id(&request.group)?;
                let account = account_id(&request.account)?;
                let table = self.marks_table_of(id, asking, account).await?;
                table.map(|table| to_raw(&table)).map_err(|_| Code::NOT_HERE.because("this is not the hub"))
            }
            Frame::KeeperAsk(request) => {
                let id = group_id(&request.group)?;
                self.ask_keeper(asking, id).await.map(|state| to_raw(&state))
            }
            Frame::KeeperPropose(request) => self.propose(asking, &request).await.map(|voted| to_raw(&voted)),
            other => Err(Code::NOT_PERMITTED.because(other.name())),
        }
    }

    async fn take_batch(
        self: &Arc<Self>,
        asking: &Domain,
        batch: pb::GroupBatch,
    ) -> Result<pb::GroupTaken, Refusal> {
        let id = group_id(&batch.group)?;
        let mut named = Named::default();
        named.records(&batch.records);
        named.head(batch.head.as_ref());
        let taken = self.in_group(id, &named, |replica, context, _| replica.batch(context, asking, &batch));
        taken.await?.durable().await
    }

    /// What is held here, for those who keep the group or read it.
    async fn ask_keeper(self: &Arc<Self>, asking: &Domain, id: GroupId) -> Result<pb::KeeperState, Refusal> {
        let nothing = Named::default();
        let asked = self.in_group(id, &nothing, |replica, context, _| {
            if is_home_of(replica.state(), asking) {
                Ok(replica.ask(context))
            } else {
                Err(Refusal::from(Code::NOT_A_MEMBER))
            }
        });
        asked.await?.durable().await?
    }

    async fn propose(
        self: &Arc<Self>,
        asking: &Domain,
        request: &pb::KeeperPropose,
    ) -> Result<pb::KeeperVoted, Refusal> {
        let proposal = pb::KeeperVote::decode(request.body.clone())
            .map_err(|_| Code::MESSAGE_MALFORMED.because("proposal"))?;
        let id = group_id(&proposal.group)?;
        let mut named = Named::default();
        named.server(proposal.hub.as_ref());
        let voted = self
            .in_group(id, &named, |replica, context, _| replica.propose(context, asking, request))
            .await?;
        voted.durable().await?
    }
}

/// An account says where it lives through the home that is there.
fn check_domain(request: &pb::GroupAppend, asking: &Domain) -> Result<(), Refusal> {
    let body = request.link.as_ref().and_then(|link| pb::GroupLinkBody::decode(link.body.clone()).ok());
    let body = body.ok_or_else(|| Code::MESSAGE_MALFORMED.because("no link"))?;
    let said = body.accept.map(|accept| accept.domain).or_else(|| body.advance.map(|advance| advance.domain));
    match said {
        Some(domain) if domain != asking.as_str() => Err(Code::NOT_A_MEMBER.because("of another home")),
        _ => Ok(()),
    }
}
