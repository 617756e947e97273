"""How the signers of the mesh root come to be, and change: `machine` runs a ceremony, the rest are its parts."""
