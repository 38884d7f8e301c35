//! All traits of the store together.

use std::sync::Arc;

use super::addresses::AddressStore;
use super::apps::AppStore;
use super::attachments::AttachmentStore;
use super::budgets::BudgetStore;
use super::cancel::CancelStore;
use super::directory::DirectoryStore;
use super::dispatch::DispatchStore;
use super::echoes::EchoStore;
use super::enquiry::EnquiryStore;
use super::inbox::InboxStore;
use super::intake::IntakeStore;
use super::leases::LeaseStore;
use super::log::LogStore;
use super::operator::OperatorStore;
use super::page_tokens::PageTokenStore;
use super::receipts::ReceiptStore;
use super::recipients::RecipientStore;
use super::refresh::RefreshStore;
use super::schema::SchemaStore;
use super::tokens::TokenStore;

/// A whole store. Cheap to clone; a part of the program takes only the trait it needs.
pub type SharedStore = Arc<dyn Store>;

/// The statements of the program, all traits together.
pub trait Store:
    SchemaStore
    + IntakeStore
    + DispatchStore
    + EchoStore
    + LeaseStore
    + LogStore
    + OperatorStore
    + EnquiryStore
    + CancelStore
    + DirectoryStore
    + PageTokenStore
    + RefreshStore
    + ReceiptStore
    + RecipientStore
    + TokenStore
    + AddressStore
    + AppStore
    + InboxStore
    + AttachmentStore
    + BudgetStore
    + 'static
{
}

impl<S> Store for S where
    S: SchemaStore
        + IntakeStore
        + DispatchStore
        + EchoStore
        + LeaseStore
        + LogStore
        + OperatorStore
        + EnquiryStore
        + CancelStore
        + DirectoryStore
        + PageTokenStore
        + RefreshStore
        + ReceiptStore
        + RecipientStore
        + TokenStore
        + AddressStore
        + AppStore
        + InboxStore
        + AttachmentStore
        + BudgetStore
        + 'static
{
}
