#!/usr/bin/env perl
# docs/unsafe.md has a row for each unsafe block: the rows of a file add up to the blocks that it has, and each file with a
# block has its heading. Tests that docs/unsafe.md and docs/limits.md name exist. Prints what does not hold; the working
# directory is the root.
use strict;
use warnings;

my (%blocks, %rows, %functions);
for my $path (split /\n/, `git ls-files -co --exclude-standard '*.rs'`) {
    open my $file, '<', $path or next;
    while (my $line = <$file>) {
        next if $line =~ m{^\s*//};
        $functions{$1} = 1 if $line =~ /\bfn (\w+)/;
        $blocks{$path}++ while $line =~ /\bunsafe\s*(\{|fn\b|impl\b|trait\b|extern\b)/g;
    }
}

for my $page ('docs/unsafe.md', 'docs/limits.md') {
    open my $file, '<', $page or print "$page is not there\n" and next;
    my $path = '';
    while (my $line = <$file>) {
        $path = $1 || '' if $line =~ /^#+ (?:`([\w\-\/.]+\.rs)`)?/;
        $rows{$path} += $1 if $page eq 'docs/unsafe.md' && $line =~ /^\| (\d+) \|/;
        # What has three words and looks like a function is a test.
        while ($line =~ /`([a-z]\w*_\w+_\w+)`/g) {
            my $name = $1;
            print "$page:$.: there is no test $name\n" unless $functions{$name} || $page eq 'docs/limits.md' && is_option($name);
        }
    }
}

# A word of the command line, of `stats` or of its settings.
sub is_option {
    my ($name) = @_;
    return system('grep', '-rqwF', '--include=*.rs', $name, 'src/settings', 'src/report', 'src/state') == 0;
}

my %all = (%blocks, %rows);
for my $path (sort keys %all) {
    my ($has, $told) = ($blocks{$path} || 0, $rows{$path} || 0);
    print "$path has $has unsafe blocks, docs/unsafe.md tells of $told\n" if $has != $told;
}
