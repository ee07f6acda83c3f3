"""The kinds of sources: each is listed, and what cannot be used has its reason. Pictures are not opened here."""
