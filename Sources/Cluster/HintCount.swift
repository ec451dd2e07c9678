// SPDX-License-Identifier: Apache-2.0

/// What a pass over hints has come to.
package struct HintCount: Hashable, Sendable {
    /// Those that some member does not have yet.
    package var left: HintIntake.Amount
    package var delivered: Int
    /// Too old to be given to anybody.
    package var dropped: Int

    package init(left: HintIntake.Amount = .init(), delivered: Int = 0, dropped: Int = 0) {
        self.left = left
        self.delivered = delivered
        self.dropped = dropped
    }
}
