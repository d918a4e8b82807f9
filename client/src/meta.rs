//! Meta commands as the caller writes them, for what the methods have no word for.

use client_core::calls;
use client_core::error::{Error, Result};
use client_core::meta::{MetaReply, MetaRequest};
use ketch_client_macros::both;

use crate::Client;
use crate::front::{Front, OnDrop};
use crate::keys;

#[cfg(feature = "tokio")]
use crate::AsyncClient;

#[both]
impl AsyncClient {
    /// Sends a meta command as the caller writes it to the node that decides for its key. With several copies, no other is told: who
    /// writes so deletes the key for them.
    ///
    /// ```example
    /// use ketch_client::{MetaOutcome, MetaRequest};
    ///
    /// client.set("k", "hello", 60).await?;
    /// let reply = client.meta(MetaRequest::get("k").flag("v").flag("t").flag("s")).await?;
    /// assert_eq!(&reply.value[..], b"hello");
    /// assert_eq!((reply.flag('s'), reply.flag('t'), reply.flag('W')), (Some("5"), Some("60"), None));
    ///
    /// // Old, but of use until somebody has a new one.
    /// let reply = client.meta(MetaRequest::delete("k").flag("I").flag("T30")).await?;
    /// assert_eq!(reply.outcome, MetaOutcome::Done);
    /// let reply = client.meta(MetaRequest::get("k").flag("v")).await?;
    /// assert!(reply.flag('X').is_some() && reply.flag('W').is_some());
    /// ```
    #[doc(alias = "raw")]
    pub async fn meta(&self, request: MetaRequest) -> Result<MetaReply> {
        if let Some(fault) = &request.fault {
            return Err(Error::Value(fault.trim_end().into()));
        }
        let key = keys::sent(&request.key, self.options()).into_owned();
        let request = MetaRequest { key, ..request };
        let _forget = OnDrop(|| self.values().wrote(&request.key));
        self.call(|context| calls::meta(context, &request)).await
    }
}
