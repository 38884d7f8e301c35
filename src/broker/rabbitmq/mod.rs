pub mod reach;
