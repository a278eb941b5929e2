# ~/.bashrc
PS1='\u@\h:\w# '
umask 022
alias ll='ls -l'
