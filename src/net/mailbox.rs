//! A worker's mailbox: a bounded queue that the control thread fills, and an eventfd that wakes the worker.
//!
//! For rare things only (health changes, drain): nothing on a request's path sends a message.

use super::stream::Stream;
use crate::limits::MAILBOX_MAX;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// The end that other threads hold.
#[derive(Debug)]
pub struct Sender<T> {
    queue: SyncSender<T>,
    bell: Arc<OwnedFd>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The worker will see it.
    Delivered,
    /// [`MAILBOX_MAX`] messages wait already: the worker is stuck.
    Full,
    /// The worker has ended.
    Gone,
}

impl<T> Sender<T> {
    /// Delivers a message without waiting.
    pub fn send(&self, message: T) -> Sent {
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Sent::Full,
            Err(TrySendError::Disconnected(_)) => return Sent::Gone,
        }
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight live bytes, as eventfd(2) wants; EAGAIN would mean that the bell rings already.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        Sent::Delivered
    }
}

/// The worker's end, made where it may cross to the worker's thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A mailbox and its first sender.
///
/// # Errors
/// No descriptor is left.
pub fn mailbox<T>() -> io::Result<(Sender<T>, Mailbox<T>)> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let bell = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
    let (sender, receiver) = sync_channel(MAILBOX_MAX);
    Ok((Sender { queue: sender, bell: Arc::clone(&bell) }, Mailbox { queue: receiver, bell }))
}

impl<T> Mailbox<T> {
    /// Hands every message to `each`, for ever. Must run inside the worker's runtime.
    ///
    /// # Errors
    /// The bell is broken.
    pub async fn run(self, mut each: impl FnMut(T)) -> io::Result<()> {
        let bell = Stream::from_fd(self.bell.try_clone()?)?;
        loop {
            bell.readable().await?;
            let mut count = [0_u8; 8];
            // SAFETY: eight bytes of room for the eight that an eventfd gives.
            unsafe { libc::read(bell.fd(), count.as_mut_ptr().cast(), count.len()) };
            bell.found_empty();
            while let Ok(message) = self.queue.try_recv() {
                each(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::on_each_driver;
    use std::cell::RefCell;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    #[test]
    fn the_queue_is_bounded_and_tells_when_nobody_reads() {
        let (sender, mailbox) = mailbox::<usize>().unwrap();
        for i in 0..MAILBOX_MAX {
            assert_eq!(sender.send(i), Sent::Delivered);
        }
        assert_eq!(sender.send(0), Sent::Full);
        drop(mailbox);
        assert_eq!(sender.clone().send(0), Sent::Gone);
    }

    #[test]
    fn what_another_thread_sends_arrives_in_order() {
        on_each_driver(|_| async {
            const MESSAGES: usize = 3 * MAILBOX_MAX;
            let (sender, mailbox) = mailbox::<usize>().unwrap();
            let thread = std::thread::spawn(move || {
                for message in 0..MESSAGES {
                    while sender.send(message) == Sent::Full {
                        std::thread::yield_now();
                    }
                }
                sender
            });
            let got = RefCell::new(Vec::new());
            let mut running = pin!(mailbox.run(|message| got.borrow_mut().push(message)));
            // each ring of the bell wakes this task
            poll_fn(|cx| match running.as_mut().poll(cx) {
                Poll::Ready(end) => panic!("{end:?}"),
                Poll::Pending if got.borrow().len() == MESSAGES => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            })
            .await;
            assert!(got.borrow().iter().copied().eq(0..MESSAGES));
            drop(thread.join().unwrap());
        });
    }
}
