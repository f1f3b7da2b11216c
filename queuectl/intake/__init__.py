"""From a dropped file to a job, or to dead/ with a reason; and making the index agree with the folders."""
