// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Signals as events: blocked in every thread, and fetched by one thread when it is ready for them. No handler ever
/// runs.
package struct ProcessSignals: Sendable {
    package enum Event: Sendable {
        case terminate
        case reload
        case childEnded
    }

    package init() {}

    /// To be called before there is a second thread: new ones inherit it.
    package func block() {
        var set = ProcessSignals.set()
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Waits for the next signal; nil where none came in time.
    package func next(milliseconds: Int) -> Event? {
        var set = ProcessSignals.set()
        var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        switch sigtimedwait(&set, nil, &time) {
        case SIGTERM, SIGINT: return .terminate
        case SIGHUP: return .reload
        case SIGCHLD: return .childEnded
        default: return nil
        }
    }

    static func set() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] { sigaddset(&set, signal) }
        return set
    }
}
