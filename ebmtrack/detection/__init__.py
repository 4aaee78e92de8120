"""Detection with an energy branch on a torchvision detector (ECCV 2020, section 4.1; BMVC 2020, section 4.2)."""
