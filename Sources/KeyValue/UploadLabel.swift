// SPDX-License-Identifier: Apache-2.0

private import NIOCore

/// What stands beside the chunks of a large value and says whose they are (docs/large-values.md): an item without a
/// value, or with one byte once they are being deleted. From then on no manifest may begin to name them.
package enum UploadLabel {
    package static func envelope(of key: Key, under label: StoredKey) -> Envelope {
        Envelope(key: key, storedKey: label, value: ByteBuffer())
    }

    package static func condemned(of key: Key, under label: StoredKey) -> Envelope {
        Envelope(key: key, storedKey: label, value: ByteBuffer(bytes: [1]))
    }

    /// Whether the chunks may be named: nobody has begun to delete them.
    package static func isWanted(_ held: Envelope) -> Bool { !held.isTombstone && held.value.readableBytes == 0 }
}
