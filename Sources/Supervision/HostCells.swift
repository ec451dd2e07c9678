// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import Telemetry

/// The memory in which a host's processes count, as the supervisor holds it: see `CellMemory`.
package struct HostCells: Sendable {
    /// What each worker inherits.
    let descriptor: Int32
    package let memory: CellMemory

    /// Nil where the system has none to give: then each worker counts for itself.
    package init?() {
        guard let made = CellMemory.makeFile(workerSlots: SupervisorStateMachine.slots) else { return nil }
        defer { close(made) }
        let descriptor = fcntl(made, F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard descriptor >= 0 else { return nil }
        guard let memory = CellMemory(file: descriptor, workerSlots: SupervisorStateMachine.slots) else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
        self.memory = memory
    }
}
