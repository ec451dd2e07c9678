// SPDX-License-Identifier: Apache-2.0

package import KeyValue

/// Since when a host has found uploads that no manifest names (docs/large-values.md). A value without IO; it may be
/// lost at any time, and begins anew.
package struct UploadWatch {
    private struct Finding {
        let label: Version
        let sinceMilliseconds: Int64
    }

    private let graceMilliseconds: Int64
    private var findings: [UploadID: Finding] = [:]
    private var seen: Set<UploadID> = []

    /// - Parameter graceMilliseconds: how long an upload is left alone that no manifest names.
    package init(graceMilliseconds: Int64) { self.graceMilliseconds = graceMilliseconds }

    package var count: Int { findings.count }

    package mutating func beginPass() { seen = [] }

    /// An upload that the host's own memory has no manifest for.
    /// - Parameter label: the label's version: another one means that the upload is being stored once more.
    /// - Returns: whether it may be collected now, if nobody else knows a manifest either.
    package mutating func isDue(_ upload: UploadID, label: Version, atMilliseconds now: Int64) -> Bool {
        if let finding = findings[upload], finding.label == label {
            seen.insert(upload)
            return now - finding.sinceMilliseconds >= graceMilliseconds
        }
        guard findings[upload] != nil || findings.count < Limits.watchedUploads else { return false }
        findings[upload] = Finding(label: label, sinceMilliseconds: now)
        seen.insert(upload)
        return false
    }

    /// Somebody knows a manifest that names it, or can't be asked: it begins anew.
    package mutating func forget(_ upload: UploadID) { findings[upload] = nil }

    /// What was not seen in this pass is gone, or in use.
    package mutating func endPass() { findings = findings.filter { seen.contains($0.key) } }
}
