"""What runs in the peers' own environment, which has none of our libraries: these modules import nothing of ours."""
