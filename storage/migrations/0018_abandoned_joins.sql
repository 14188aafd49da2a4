-- Which of a room's snapshots lack members for ever: those of the times when everybody here left a room again before its
-- members were known. What stands on them is judged by a state that another server tells (docs/adr/0016).
ALTER TABLE rooms ADD COLUMN lacking int8multirange NOT NULL DEFAULT '{}';
