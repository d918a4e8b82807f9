#!/usr/bin/env perl
# Names that no compiler checks. Labels: a rule at the head of a file ("Tb1. Each bucket ..") has a name that is unique in
# its crate, and each comment that cites one ("(Tb1)") cites one that exists. Documents: files and code names in backticks,
# and the targets of links, exist. Prints what does not hold; the working directory is the root.
use strict;
use warnings;

my @rust = split /\n/, `git ls-files -co --exclude-standard '*.rs'`;
my @pages = grep { !m{/data/} } split /\n/, `git ls-files -co --exclude-standard '*.md'`;
my (%defined, %anywhere, %prefixes, @cited, %words);

sub crate {
    my ($path) = @_;
    return $1 if $path =~ m{^(bench|client|client-core|http|ketchctl|protocol|slab-alloc|testing)/};
    return 'ketch';
}

for my $path (@rust) {
    open my $file, '<', $path or next;
    my $crate = crate($path);
    while (my $line = <$file>) {
        $words{$_} = 1 for $line =~ /\w+/g;
        next unless $line =~ m{(//.*)};
        my $comment = $1;
        if ($comment =~ s{^(//[!/]?\s{1,3})([A-Z][a-z]?\d{1,2})\. }{$1}) {
            push @{$defined{$crate}{$2}}, "$path:$.";
            $anywhere{$2} = 1;
            $prefixes{$crate}{$1} = 1 if $2 =~ /^([A-Z][a-z]?)/;
        }
        $comment =~ s/`[^`]*`|"[^"]*"//g;
        # A sentence may name another crate's rule. What has more than 19 rules is no list of rules.
        push @cited, [$crate, $1, $2, "$path:$."] while $comment =~ /(?<![\w.'\-])([A-Z][a-z]?)(1?[1-9]|10)(?![\w'\-])/g;
    }
}
for my $crate (sort keys %defined) {
    for my $label (sort keys %{$defined{$crate}}) {
        my @places = @{$defined{$crate}{$label}};
        print "$label names two rules: @places\n" if @places > 1;
    }
}
for (@cited) {
    my ($crate, $letters, $number, $place) = @$_;
    next unless $prefixes{$crate}{$letters};
    print "$place: there is no rule $letters$number\n" unless $anywhere{"$letters$number"};
}

# A name in backticks that looks like ours: a path, a type or function with its module, a word of several humps, a call.
sub is_there {
    my ($page, $name) = @_;
    (my $dir = $page) =~ s{[^/]*$}{};
    if ($name =~ m{^[\w.\-]+(/[\w.\-]+)*/?$} && $name =~ m{/|\.(rs|md|sh|toml)$}) {
        return 1 if -e "$dir$name" || -e $name || -e "$name.rs";
        # Not a path of ours: another tree's, a value, a unix path, a file that a build makes.
        return 1 unless $name =~ m{^(src|tests|testing|client|client-core|bench|protocol|slab-alloc|http|ketchctl|scripts|docs|packaging|examples|\.ci)/|^[a-z_]+\.rs$};
        return 1 if $name =~ /^([a-z_]+\.rs)$/ && grep { m{(^|/)\Q$1\E$} } @rust;
        return 0;
    }
    if ($name =~ /^([A-Za-z_]+(?:::[A-Za-z_]+)+)(\(\))?$/) {
        $words{$_} or return 0 for grep { !/^(std|io|crate)$/ } split /::/, $1;
        return 1;
    }
    return $words{$1} // 0 if $name =~ /^((?:[A-Z][a-z]+){2,})$/;
    return $words{$1} // 0 if $name =~ /^([a-z_]{3,})\(\)$/;
    return 1;
}

for my $page (@pages) {
    open my $file, '<', $page or next;
    my $code = 0;
    while (my $line = <$file>) {
        $code = !$code, next if $line =~ /^\s*```/;
        if ($code && $page eq 'ARCHITECTURE.md') {
            for my $name ($line =~ /\b[a-z_0-9]+\.rs\b/g) {
                print "$page:$.: there is no $name\n" unless grep { m{(^|/)\Q$name\E$} } @rust;
            }
        }
        next if $code || $page eq 'CHANGELOG.md';
        while ($line =~ /`([^`]+)`/g) {
            my $name = $1;
            print "$page:$.: there is no $name\n" unless is_there($page, $name);
        }
        while ($line =~ /\]\(([^)#:\s]+)(?:#[^)]*)?\)/g) {
            my $target = $1;
            (my $dir = $page) =~ s{[^/]*$}{};
            print "$page:$.: the link leads nowhere: $target\n" unless -e "$dir$target";
        }
    }
}
