"""Files under seal: chunks, packs, manifests, and the reader sets whose secret opens them."""
