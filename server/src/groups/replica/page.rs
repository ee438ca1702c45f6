//! Pages: what another home is given that asks for the log or the state, and what this one asked for.

use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupEntry, GroupHead};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::effect::Row;
use super::follower::{Shipment, Source};
use super::{Context, Replica, stored};

/// Bytes of an encoded state that fit on a page.
const STATE_BYTES: usize = 65_536;

impl Replica {
    /// The number after which the shell has to read the rows for a page.
    #[must_use]
    pub fn page_after(&self, fetch: &pb::GroupFetch) -> u64 {
        if !fetch.from_state {
            return fetch.after_seq;
        }
        let checkpoint = self.checkpoint.as_ref().and_then(|row| row.at.as_ref());
        checkpoint.map_or(0, |at| at.seq.saturating_sub(1)).max(fetch.after_seq)
    }

    /// A page: rows are those after [`Self::page_after`], as many as a page takes; where only links are asked for, only
    /// rows of links ([`super::slot_is_link`]), until there are none: such a page is the last. Who may ask is the shell's to
    /// check; `member_of` is the domain of the member asked for, so that the hub ships to it from here on.
    ///
    /// # Errors
    /// `group-not-ready` where no signed head is at hand.
    pub fn page(
        &mut self,
        cx: &Context<'_>,
        fetch: &pb::GroupFetch,
        rows: &[Row],
        member_of: Option<&Domain>,
    ) -> Result<pb::GroupPage, Refusal> {
        let mut page = pb::GroupPage {
            group: self.group.to_bytes(),
            first: Some(self.first().to_pb()),
            ..Default::default()
        };
        let fresh = fetch.from_state && fetch.after_seq == 0;
        if fresh && let Some(row) = &self.checkpoint {
            let offset = usize::try_from(fetch.state_offset).unwrap_or(usize::MAX);
            let rest = row.state.get(offset..).unwrap_or_default();
            let part = rest.get(..STATE_BYTES.min(rest.len())).unwrap_or_default();
            page.state = row.state.slice_ref(part);
            page.state_at.clone_from(&row.at);
            page.state_more = part.len() < rest.len();
            if page.state_more {
                page.head = self.signed_head(cx);
                page.more = true;
                return Ok(page);
            }
        }
        let end = self.history.end();
        let (head, count) = if fetch.links_only {
            (self.signed_head(cx).ok_or(Code::GROUP_NOT_READY)?, rows.len())
        } else if rows.first().is_some_and(|row| row.seq <= self.first().seq) {
            // What was fetched to join is for those who ask for links.
            return Err(Code::GROUP_NOT_READY.into());
        } else {
            match self.cut_at_head(cx, rows) {
                Some(cut) => cut,
                None if rows.is_empty() => (self.signed_head(cx).ok_or(Code::GROUP_NOT_READY)?, 0),
                None => return Err(Code::GROUP_NOT_READY.into()),
            }
        };
        let last = count.checked_sub(1).and_then(|last| rows.get(last)).map(|row| row.seq);
        page.more = last.is_some_and(|last| fetch.links_only || last < end.seq);
        page.head = Some(head);
        for row in rows.iter().take(count) {
            if !fetch.links_only || stored::slot_is_link(&row.slot) {
                let record: Result<pb::GroupRecord, _> = prost::Message::decode(row.record.clone());
                page.records.push(record.map_err(|_| Refusal::from(Code::GROUP_NOT_READY))?);
            }
        }
        if !page.more {
            let of = |((account, device), number): (&super::DeviceKey, &u64)| pb::DeviceNumber {
                device: device.to_bytes(),
                account: account.to_bytes(),
                number: *number,
                seq: 0,
            };
            page.numbers = self.history.devices().iter().map(of).collect();
            if let Some(domain) = member_of {
                self.fetched(cx, domain, end);
            }
        }
        Ok(page)
    }

    /// A page that this home asked for, from `stable` on. One that does not help is passed over: the campaign it was
    /// for runs out of time, or the next batch is answered as the last was.
    pub(super) fn paged(&mut self, cx: &Context<'_>, from: Domain, campaign: bool, page: &pb::GroupPage) {
        let first = page.records.first().and_then(|record| GroupEntry::parse(&record.entry).ok());
        let after = first.and_then(|entry| entry.seq().checked_sub(1)).and_then(|seq| self.history.at(seq));
        if !campaign && self.lost_state(cx, page.head.as_ref()) {
            self.core.recovering = true;
            self.core_changed = true;
            return self.campaign_begins(cx);
        }
        let taken = match after {
            Some(after) => {
                let shipment = Shipment { after, records: &page.records, head: page.head.as_ref() };
                self.take(cx, Source::Page, shipment).is_ok()
            }
            None => page.records.is_empty(),
        };
        let last = page.records.last().and_then(|record| GroupEntry::parse(&record.entry).ok());
        match last {
            Some(last) if taken && page.more => self.fetch_after(from, last.seq(), campaign),
            _ if taken && campaign => self.campaign_fetched(cx),
            _ => {}
        }
    }

    /// Whether the head is this very hub's, of a place in its own term that it does not know.
    fn lost_state(&self, cx: &Context<'_>, head: Option<&pb::SignedGroupHead>) -> bool {
        let Some(head) = head.and_then(|head| GroupHead::verify(head, cx.evidence).ok()) else {
            return false;
        };
        let own = head.group == self.group && head.hub.server == cx.own.signer.server;
        own && self.signing_term(cx) == Some(head.position.term) && head.position.seq > self.history.end().seq
    }
}
