// SPDX-License-Identifier: Apache-2.0

package import Glibc

/// A program that ends when this process does, however that ends.
///
/// A small shell starts the program, and kills it at the end of a pipe that only this process writes to. (A
/// parent-death signal would not do: it comes when the *thread* ends that started the child.) Neither of them keeps any
/// other descriptor of this process open.
package final class OwnedProcess: Sendable {
    private static let guardian = """
        for descriptor in /proc/$$/fd/*; do
            number=${descriptor##*/}
            [ "$number" -le 2 ] || eval "exec $number>&-"
        done
        "$@" >/dev/null &
        child=$!
        echo "$child"
        read -r _
        kill -9 "$child" 2>/dev/null
        wait "$child" 2>/dev/null
        """

    /// The program's own.
    package let pid: pid_t
    private let shell: pid_t
    private let lifeline: Descriptor

    package init(_ command: [String]) throws {
        let input = try OwnedProcess.pipe()
        let output = try OwnedProcess.pipe()
        shell = try OwnedProcess.spawn(
            ["/bin/bash", "-c", OwnedProcess.guardian, "guardian"] + command, input: input.read, output: output.write)
        input.read.close()
        output.write.close()
        lifeline = input.write
        var line: [UInt8] = []
        while line.last != UInt8(ascii: "\n"), let bytes = output.read.read(), !bytes.isEmpty { line += bytes }
        guard let pid = pid_t(String(decoding: line.dropLast(), as: UTF8.self)) else {
            throw Descriptor.Failure(call: "starting \(command[0])", number: ECHILD)
        }
        self.pid = pid
    }

    deinit { end() }

    package var isAlive: Bool { lifeline.raw >= 0 && kill(pid, 0) == 0 }

    package func signal(_ number: Int32) {
        precondition(lifeline.raw >= 0, "it has been ended")
        _ = kill(pid, number)
    }

    /// Kills it with -9 and waits until it is gone.
    package func end() {
        guard lifeline.raw >= 0 else { return }
        lifeline.close()
        var status: Int32 = 0
        while waitpid(shell, &status, 0) < 0, errno == EINTR {}
    }

    private static func pipe() throws -> (read: Descriptor, write: Descriptor) {
        var numbers: [Int32] = [-1, -1]
        guard Glibc.pipe(&numbers) == 0 else { throw Descriptor.Failure(call: "pipe", number: errno) }
        let ends = (read: Descriptor(numbers[0]), write: Descriptor(numbers[1]))
        ends.read.closeOnExec()
        ends.write.closeOnExec()
        return ends
    }

    private static func spawn(_ command: [String], input: Descriptor, output: Descriptor) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input.raw, 0)
        posix_spawn_file_actions_adddup2(&actions, output.raw, 1)
        var arguments = command.map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        arguments.append(nil)
        var pid: pid_t = 0
        let result = posix_spawn(&pid, command[0], &actions, nil, arguments, environ)
        guard result == 0 else { throw Descriptor.Failure(call: "posix_spawn", number: result) }
        return pid
    }
}
