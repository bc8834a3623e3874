//! What a client may do is asked here: renewed after a reload, refused packet by packet.

use std::sync::Arc;

use super::Client;
use crate::{
    access::{Gone, Pass, Reach},
    codec::{Filter, Reason},
    session::Inner,
};

impl Client {
    /// Takes note of a reload: the client goes on with its new rights, or hears why it may not.
    pub(super) fn renew(&mut self) {
        if self.closing.is_some() || self.hub.access.is_current(&self.pass) {
            return;
        }
        let session = self.session.clone();
        let mut inner = session.inner.lock();
        let renewed = self
            .hub
            .access
            .renew(&self.pass)
            .and_then(|pass| keeps_subscriptions(&self.pass, pass, &inner));
        match renewed {
            Ok(pass) => {
                if inner.owner == self.connection {
                    inner.pass = Some(pass.clone());
                    self.hub.watch_anew(&mut inner, &pass);
                }
                self.pass = pass;
                for group in inner.groups.values() {
                    group.renew(self.connection, &self.pass);
                }
                if let Some(feed) = &mut self.feed {
                    feed.set_filters(&inner, &self.hub.durable_filters);
                }
            }
            Err(Gone(text)) => {
                drop(inner);
                self.note_refusal(text);
                self.close(Reason::NotAuthorized, text);
            }
        }
    }

    /// Why a subscription is refused; `from` says that its start is chosen.
    pub(super) fn refuse_subscription(&self, filter: &Filter, from: bool) -> Option<&'static str> {
        if self.pass.reach(&filter.path) == Reach::Nothing {
            return Some("not allowed to subscribe");
        }
        (from && !self.pass.is_trusted())
            .then_some("not allowed to choose where a subscription starts")
    }
}

/// Whether nothing that the client subscribed to has become forbidden.
fn keeps_subscriptions(old: &Pass, new: Arc<Pass>, inner: &Inner) -> Result<Arc<Pass>, Gone> {
    let is_lost = |filter: &String| {
        old.reach(filter) != Reach::Nothing && new.reach(filter) == Reach::Nothing
    };
    if inner.subscriptions.keys().any(is_lost) {
        return Err(Gone("a subscription is not allowed any more"));
    }
    Ok(new)
}
