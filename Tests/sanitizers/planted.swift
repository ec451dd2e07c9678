// SPDX-License-Identifier: Apache-2.0
// What a sanitizer has to report, and what it must not: Tests/sanitize.sh believes no clean run of one that is blind.

import Glibc
import Synchronization

nonisolated(unsafe) private var shared = 0

@main
enum Planted {
    static func main() async {
        switch CommandLine.arguments.dropFirst().first {
        // Errors.
        case "race":
            let threads = (0..<2).map { _ in OwnThread { for _ in 0..<20_000 { shared += 1 } } }
            for thread in threads { thread.join() }
        case "late-write":
            // Behind what resumes the task that reads it.
            for number in 0..<200 {
                _ = await withUnsafeContinuation { (continuation: UnsafeContinuation<Int, Never>) in
                    let thread = OwnThread {
                        continuation.resume(returning: number)
                        shared = number
                    }
                    if number % 2 == 0 { thread.join() } else { thread.detach() }
                }
                shared += 1
            }
        case "two-mutexes":
            let threads = (0..<2).map { _ in
                let lock = Lock()
                return OwnThread { for _ in 0..<20_000 { lock.mutex.withLock { _ in shared += 1 } } }
            }
            for thread in threads { thread.join() }
        case "freed":
            let memory = UnsafeMutablePointer<Int>.allocate(capacity: 4)
            memory.initialize(repeating: 1, count: 4)
            memory.deallocate()
            shared = memory[Int(getpid()) & 3]
        case "beyond":
            let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: 16)
            shared = Int(memory[16 + (Int(getpid()) & 1)])
        // None.
        case "handed-over":
            for number in 0..<200 {
                let found: Int = await withUnsafeContinuation { continuation in
                    let thread = OwnThread {
                        shared = number
                        continuation.resume(returning: number)
                    }
                    if number % 2 == 0 { thread.join() } else { thread.detach() }
                }
                precondition(found == shared)
            }
        case "one-mutex":
            let lock = Lock()
            let threads = (0..<3).map { _ in
                OwnThread { for _ in 0..<20_000 { lock.mutex.withLock { _ in shared += 1 } } }
            }
            for thread in threads { thread.join() }
            precondition(shared == 60_000)
        default: exit(64)
        }
        print(shared)
    }
}

private final class Lock: Sendable {
    let mutex = Mutex(0)
}

private final class OwnThread {
    private var thread = pthread_t()

    init(_ body: @escaping () -> Void) {
        pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(Body(body)).toOpaque())
    }

    func join() { pthread_join(thread, nil) }

    func detach() { pthread_detach(thread) }

    private final class Body {
        let run: () -> Void

        init(_ run: @escaping () -> Void) { self.run = run }
    }
}
