// SPDX-License-Identifier: Apache-2.0

private import ArgumentParser
private import Supervision

/// `KVServer …` is the supervisor; `KVServer worker …` is what it starts, never a user.
@main
enum Main {
    static func main() {
        // Before any thread is there: each inherits it, and signals come as events.
        ProcessSignals().block()
        let arguments = Array(CommandLine.arguments.dropFirst())
        if arguments.first == "worker" { WorkerCommand.run(Array(arguments.dropFirst())) }
        ServerCommand.main(arguments)
    }
}

/// Exit statuses from sysexits.h, by which systemd's unit tells what a restart can't heal.
enum ExitStatus {
    static let usage: Int32 = 64
    static let configuration: Int32 = 78
}

/// The version of this program, as `--version` and `/status` say it.
let programVersion = "0.1.0"
